"""A few kept lines of each kind; tests/faults/everything.py does many."""

import pytest
from faulty import OUTCOMES

from tests.faults import command_lines, run_reports, settings_files

KEPT = 3


@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        (kind, seed)
        for family in (command_lines, settings_files, run_reports)
        for kind in family.KINDS.values()
        for seed in range(1 if kind is command_lines.extreme else KEPT)
    ],
)
def test_a_wrong_line_or_file_is_refused_and_an_odd_one_is_used(kind, seed, tmp_path):
    assert kind(seed, tmp_path) in OUTCOMES
