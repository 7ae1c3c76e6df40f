"""A few kept kills; tests/faults/everything.py does many of each kind."""

import signal

import pytest
from faulty import OUTCOMES

from tests.faults import signals


@pytest.mark.parametrize(
    ("name", "kind", "seed"),
    [("rotation", signal.SIGTERM, 0), ("rotation", signal.SIGKILL, 1)],
)
def test_a_killed_command_goes_on(name, kind, seed, tmp_path):
    assert signals.killed(name, kind, seed, tmp_path) in OUTCOMES
