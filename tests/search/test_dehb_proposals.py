import math
import sys
from collections import Counter

import pytest
from searching import FEW, SPACE, told, train

from l2l_evograd.checks import InputError
from l2l_evograd.search import search

pytest.importorskip("dehb")
loguru = pytest.importorskip("loguru")
ConfigSpace = pytest.importorskip("ConfigSpace")


def fidelities(**changed):
    result = search(train, SPACE, **{**FEW, **changed})
    return [one.fidelity for one in result.evaluations]


def test_one_round_of_brackets_has_65_evaluations_as_published():
    brackets = [
        {1: 27, 3: 9, 9: 3, 27: 1},
        {3: 9, 9: 3, 27: 1},
        {9: 6, 27: 2},
        {27: 4},
    ]
    given = fidelities()
    assert len(given) == 65
    for bracket in brackets:
        size = sum(bracket.values())
        assert Counter(given[:size]) == bracket
        assert given[:size] == sorted(given[:size])
        given = given[size:]
    assert fidelities(budget=FEW["budget"] + 27)[65:] == [1] * 27  # and then anew


def test_no_rung_is_lost_to_rounding():
    given = fidelities(max_fidelity=243, budget=243 * 6)
    assert sorted(set(given)) == [1, 3, 9, 27, 81, 243]
    assert given.count(1) == 243


def test_the_better_ones_are_promoted():
    result = search(train, SPACE, **FEW)
    lowest = [one for one in result.evaluations[:27]]
    promoted = [one.config for one in result.evaluations[27:36]]
    best = sorted(lowest, key=lambda one: one.loss)[:9]
    assert sorted(map(str, promoted)) == sorted(str(one.config) for one in best)


@pytest.mark.parametrize("diverging", [(1,), (3, 9), (27,), (1, 3, 9, 27)])
def test_whole_rungs_may_diverge(diverging):
    def partly(config, fidelity, seed):
        return math.nan if fidelity in diverging else train(config, fidelity, seed)

    result = search(partly, SPACE, **{**FEW, "budget": 3 * 405})
    assert len(result.evaluations) > 150
    assert math.isfinite(result.searched_loss) == (27 not in diverging)


def test_handlers_of_loguru_survive_and_nothing_is_written(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    messages = []
    number = loguru.logger.add(messages.append, format="{message}")
    try:
        search(train, SPACE, **FEW)
        loguru.logger.info("after the search")
    finally:
        loguru.logger.remove(number)  # an error if the handler is gone
    assert messages == ["after the search\n"]
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().out == ""
    assert "dehb" in sys.modules


@pytest.mark.parametrize("space", [{"x": (0.0, 1.0)}, {"x": [1, 2]}])
def test_one_dimension_is_enough(space):
    result = search(lambda config, fidelity, seed: config["x"], space, **FEW)
    assert len(result.evaluations) == 65


def test_a_configuration_space_gives_what_its_dictionary_gives():
    space = ConfigSpace.ConfigurationSpace()
    space.add(
        ConfigSpace.Float("lr", (1e-4, 1.0), log=True),
        ConfigSpace.Integer("layers", (1, 4)),
        ConfigSpace.Categorical("kind", ["a", "b", None]),
    )
    assert told(search(train, space, **FEW)) == told(search(train, SPACE, **FEW))


@pytest.mark.parametrize("method", ["dehb", "tpe"])
def test_forbidden_clauses_are_refused(method):
    if method == "tpe":
        pytest.importorskip("optuna")
    space = ConfigSpace.ConfigurationSpace({"x": ["a", "b"], "y": (0.0, 1.0)})
    space.add(ConfigSpace.ForbiddenEqualsClause(space["x"], "b"))
    with pytest.raises(InputError, match="without forbidden clauses for method="):
        search(train, space, **FEW, method=method)
    result = search(lambda config, *_: config["y"], space, **FEW, method="random")
    assert {one.config["x"] for one in result.evaluations} == {"a"}
