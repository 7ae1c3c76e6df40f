"""The commands of ``l2l-evograd`` and their options.

What a command needs is imported when it runs, so that ``--help`` is quick.
"""

from l2l_evograd.commands import (
    crossdomain,
    illustrations,
    noisy_labels,
    prepare,
    report,
)
from l2l_evograd.commands.application import app, run

__all__ = [
    "app",
    "crossdomain",
    "illustrations",
    "noisy_labels",
    "prepare",
    "report",
    "run",
]
