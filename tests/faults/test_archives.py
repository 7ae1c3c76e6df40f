"""Archives with faults: a few seeds of each kind, and one that once found a fault."""

import pytest
from faulty import OUTCOMES, REFUSED

from tests.faults import archives


@pytest.mark.parametrize("kind", list(archives.KINDS))
@pytest.mark.parametrize("seed", range(2))
def test_every_kind_of_fault_ends_well(kind, seed, tmp_path):
    assert archives.KINDS[kind](seed, tmp_path) in OUTCOMES


def test_a_name_in_a_zip_archive_with_flipped_bits_is_noticed(tmp_path):
    kind = "Omniglot's archives, damaged or inflating"
    assert archives.KINDS[kind](1020, tmp_path) == REFUSED
