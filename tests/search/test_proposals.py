import pytest

from l2l_evograd.search.proposals import rungs


@pytest.mark.parametrize(
    ("least", "most", "eta", "expected"),
    [
        (1, 27, 3, [1, 3, 9, 27]),
        (22, 200, 3, [22, 67, 200]),
        (2, 27, 3, [3, 9, 27]),
        (10, 29, 3, [29]),
        (5, 5, 2, [5]),
        (1, 243, 3, [1, 3, 9, 27, 81, 243]),
        (1, 1000, 10, [1, 10, 100, 1000]),
    ],
)
def test_fidelities_are_the_highest_divided_by_powers(least, most, eta, expected):
    assert rungs(least, most, eta) == expected
    assert min(expected) >= least
