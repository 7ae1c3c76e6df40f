"""Learning with noisy labels: weights of samples, of each batch or from a weight net.

The names are imported when they are first used, because the module needs Lightning.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from l2l_evograd.experiments.noisy_labels.corruption import (
        corrupt_labels,
        long_tail,
    )
    from l2l_evograd.experiments.noisy_labels.module import NoisyLabelModule
    from l2l_evograd.experiments.noisy_labels.split import split_meta
    from l2l_evograd.experiments.noisy_labels.weighting import (
        MetaWeightNet,
        weighted_loss,
    )

__all__ = [
    "MetaWeightNet",
    "NoisyLabelModule",
    "corrupt_labels",
    "long_tail",
    "split_meta",
    "weighted_loss",
]

_MODULES = {
    "MetaWeightNet": "weighting",
    "NoisyLabelModule": "module",
    "corrupt_labels": "corruption",
    "long_tail": "corruption",
    "split_meta": "split",
    "weighted_loss": "weighting",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
