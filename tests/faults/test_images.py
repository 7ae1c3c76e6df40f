"""Images with faults: a few seeds of each kind."""

import pytest
from faulty import OUTCOMES

from tests.faults import images


@pytest.mark.parametrize("kind", list(images.KINDS))
@pytest.mark.parametrize("seed", range(2))
def test_every_kind_of_fault_ends_well(kind, seed, tmp_path):
    assert images.KINDS[kind](seed, tmp_path) in OUTCOMES
