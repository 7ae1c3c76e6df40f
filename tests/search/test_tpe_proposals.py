import logging
from collections import defaultdict

import pytest
from searching import FEW, SPACE, train

from l2l_evograd.search import search

optuna = pytest.importorskip("optuna")
pytest.importorskip("ConfigSpace")

TPE = {**FEW, "method": "tpe"}


def trials(result):
    """Return the fidelities of each trial; runs of a trial follow one another."""
    found = defaultdict(list)
    for one in result.evaluations:
        found[str(one.config)].append(one.fidelity)
    return list(found.values())


def test_trials_go_on_from_the_first_fidelity_of_their_bracket_without_gaps():
    found = trials(search(train, SPACE, **{**TPE, "budget": 2000}))
    ladder = [1, 3, 9, 27]
    for fidelities in found:
        start = ladder.index(fidelities[0])
        assert fidelities == ladder[start : start + len(fidelities)]
    assert {fidelities[0] for fidelities in found} == set(ladder)


def test_worse_trials_are_pruned():
    found = trials(search(train, SPACE, **{**TPE, "budget": 2000}))
    lowest = [fidelities for fidelities in found if fidelities[0] == 1]
    assert 0 < sum(one[-1] == 27 for one in lowest) < len(lowest) / 2


def test_no_rung_is_lost_to_rounding():
    few = {**TPE, "max_fidelity": 243, "budget": 243 * 20}
    assert {one[0] for one in trials(search(train, SPACE, **few))} == {
        *(1, 3, 9, 27, 81, 243)
    }


def test_it_learns_from_losses():
    """The last quarter of the trials is closer to the best rate than the first."""

    def distance(config, fidelity, seed):
        return (config["lr"] - 0.3) ** 2

    result = search(
        distance,
        {"lr": (0.0, 1.0)},
        min_fidelity=1,
        max_fidelity=1,
        budget=60,
        method="tpe",
    )
    losses = [one.loss for one in result.evaluations]
    assert sum(losses[-15:]) < sum(losses[:15]) / 4


def test_optuna_says_nothing_and_keeps_its_verbosity(capfd):
    optuna.logging.set_verbosity(logging.INFO)
    search(train, SPACE, **TPE)
    assert optuna.logging.get_verbosity() == logging.INFO
    assert capfd.readouterr() == ("", "")
