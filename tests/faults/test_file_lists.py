"""File lists with faults: a few seeds of each kind."""

import pytest
from faulty import OUTCOMES

from tests.faults import file_lists


@pytest.mark.parametrize("kind", list(file_lists.KINDS))
@pytest.mark.parametrize("seed", range(2))
def test_every_kind_of_fault_ends_well(kind, seed, tmp_path):
    assert file_lists.KINDS[kind](seed, tmp_path) in OUTCOMES
