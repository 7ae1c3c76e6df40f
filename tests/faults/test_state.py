"""A few faults of each kind; tests/faults/everything.py tries many."""

import pytest

from tests.faults.state import COMMANDS, KINDS

# The commands that are quick; the others are tried by everything.py.
QUICK = [COMMANDS.index("rotation")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("round", range(2))
def test_a_run_with_a_fault_ends_as_one_without_or_is_refused(
    kind: str, round: int, tmp_path
):
    for number in QUICK:
        KINDS[kind](round * len(COMMANDS) + number, tmp_path)
