"""A short part of the long runs; tests/faults/everything.py does all of them."""

from faulty import SAME

from tests.faults import leaks


def test_memory_and_open_files_stay_flat(tmp_path):
    assert leaks.flat("rotation", 300, 0, tmp_path) == SAME
