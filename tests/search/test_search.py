import math
import subprocess
import sys
from collections import Counter

import pytest
from searching import FEW, ROUND, SPACE, Interrupted, stopping_after, told, train

from l2l_evograd.checks import InputError
from l2l_evograd.search import METHODS, RECORD, search

pytest.importorskip("ConfigSpace")

LIBRARY = {"dehb": "dehb", "tpe": "optuna", "random": "ConfigSpace"}


@pytest.fixture(params=METHODS)
def method(request):
    pytest.importorskip(LIBRARY[request.param])
    return request.param


def test_the_best_is_close_and_its_loss_is_that_of_the_fresh_seeds(method):
    result = search(train, SPACE, **FEW, method=method)
    assert 10**-3 < result.best["lr"] < 10**-1
    assert len(result.losses) == 3
    assert result.loss == pytest.approx(sum(result.losses) / 3)
    assert result.spent == sum(one.fidelity for one in result.evaluations) <= ROUND


def test_the_best_is_taken_at_the_highest_fidelity_only(method):
    """Short runs give the lower losses here."""

    def deceiving(config, fidelity, seed):
        return config["lr"] if fidelity == 27 else -1 / fidelity - config["lr"]

    result = search(deceiving, SPACE, **FEW, method=method)
    whole = [one for one in result.evaluations if one.fidelity == 27]
    assert result.searched_loss == min(one.loss for one in whole)
    assert result.best["lr"] == min(one.config["lr"] for one in whole)


def test_fresh_seeds_are_those_that_the_search_has_not_used(method):
    seeds = []

    def noting(config, fidelity, seed):
        seeds.append(seed)
        return train(config, fidelity, seed)

    result = search(noting, SPACE, **FEW, method=method, fresh_seeds=5)
    searched = [one.seed for one in result.evaluations]
    assert seeds[:-5] == searched
    assert len(set(seeds)) == len(seeds)
    assert {seed % 2 for seed in searched} == {0}  # so that they never meet
    assert {seed % 2 for seed in seeds[-5:]} == {1}
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_the_same_seed_gives_the_same_search_and_another_gives_another(method):
    results = [
        told(search(train, SPACE, **FEW, method=method, seed=seed))
        for seed in (1, 1, 2)
    ]
    assert results[0] == results[1]
    assert results[0][0][0] != results[2][0][0]


@pytest.mark.parametrize("calls", [0, 1, 9, 10])
@pytest.mark.parametrize("error", [Interrupted, KeyboardInterrupt])
def test_a_resumed_search_is_an_uninterrupted_one(method, calls, error, tmp_path):
    whole = search(train, SPACE, **FEW, method=method)
    with pytest.raises(error):
        search(
            stopping_after(calls, error), SPACE, **FEW, method=method, folder=tmp_path
        )
    with pytest.raises(error):  # and once more, further on
        search(
            stopping_after(3, error),
            SPACE,
            **FEW,
            method=method,
            folder=tmp_path,
            resume=True,
        )
    calls_left = len(whole.evaluations) + 3 - calls - 3
    resumed = search(
        stopping_after(calls_left),  # nothing is trained twice
        SPACE,
        **FEW,
        method=method,
        folder=tmp_path,
        resume=True,
    )
    assert told(resumed) == told(whole)


def test_a_search_that_ended_is_resumed_without_training(method, tmp_path):
    whole = search(train, SPACE, **FEW, method=method, folder=tmp_path)
    again = search(
        stopping_after(0), SPACE, **FEW, method=method, folder=tmp_path, resume=True
    )
    assert told(again) == told(whole)
    assert again.evaluations == whole.evaluations  # their seconds too


def test_a_search_is_prolonged_by_resuming_it_with_more_budget(method, tmp_path):
    longer = {**FEW, "budget": 2 * ROUND}
    search(train, SPACE, **FEW, method=method, folder=tmp_path)
    prolonged = search(
        train, SPACE, **longer, method=method, folder=tmp_path, resume=True
    )
    assert told(prolonged) == told(search(train, SPACE, **longer, method=method))


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_diverged_runs_are_the_worst(method, loss, tmp_path):
    def often_diverging(config, fidelity, seed):
        return loss if config["kind"] == "b" else train(config, fidelity, seed)

    result = search(often_diverging, SPACE, **FEW, method=method, folder=tmp_path)
    assert any(one.diverged for one in result.evaluations)
    assert result.best["kind"] != "b"
    assert math.isfinite(result.searched_loss)
    again = search(
        stopping_after(0), SPACE, **FEW, method=method, folder=tmp_path, resume=True
    )
    assert str(told(again)) == str(told(result))  # NaN is not equal to itself


def test_a_search_in_which_all_diverges_says_so():
    def diverging(config, fidelity, seed):
        return math.nan

    result = search(diverging, SPACE, **FEW, method="random")
    assert not math.isfinite(result.searched_loss)
    assert not any(math.isfinite(loss) for loss in result.losses)


def test_a_search_without_a_whole_training_says_so(tmp_path):
    pytest.importorskip("optuna")
    few = {**FEW, "budget": 40, "method": "tpe", "folder": tmp_path}
    with pytest.raises(InputError, match=r"none was reached: (\d+) of \1 eval"):
        search(lambda *_: math.nan, SPACE, **few)
    longer = {**few, "budget": ROUND, "resume": True}
    assert search(lambda *_: math.nan, SPACE, **longer).spent > 40


def test_errors_of_the_training_reach_the_caller(method):
    with pytest.raises(Interrupted):
        search(stopping_after(5), SPACE, **FEW, method=method)


def test_what_is_no_number_is_refused(method):
    with pytest.raises(TypeError, match="return the loss as a number, got None"):
        search(lambda *_: None, SPACE, **FEW, method=method)


def test_progress_is_told_of_each_evaluation_and_the_budget_spent(method, tmp_path):
    seen = []
    result = search(
        train,
        SPACE,
        **FEW,
        method=method,
        folder=tmp_path,
        progress=lambda *one: seen.append(one),
    )
    assert [one for one, _ in seen] == result.evaluations
    assert [spent for _, spent in seen][-1] == result.spent
    replayed = []
    search(
        train,
        SPACE,
        **FEW,
        method=method,
        folder=tmp_path,
        resume=True,
        progress=lambda *one: replayed.append(one),
    )
    assert replayed == seen


def test_training_may_change_its_configuration(method):
    def changing(config, fidelity, seed):
        loss = train(config, fidelity, seed)
        config.clear()
        return loss

    changed = search(changing, SPACE, **FEW, method=method)
    assert told(changed) == told(search(train, SPACE, **FEW, method=method))


@pytest.mark.parametrize("budget", [405, 404, 431, 432, 27.5 * 15])
def test_nothing_is_started_that_would_pass_the_budget(budget, method):
    result = search(train, SPACE, **{**FEW, "budget": budget}, method=method)
    full = search(train, SPACE, **{**FEW, "budget": 2 * ROUND}, method=method)
    fidelities = [one.fidelity for one in full.evaluations]
    count = len(result.evaluations)
    assert [one.fidelity for one in result.evaluations] == fidelities[:count]
    assert result.spent <= budget < result.spent + fidelities[count]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "grid"}, "expected method to be one of"),
        ({"min_fidelity": 0}, "expected min_fidelity to be a whole number"),
        ({"max_fidelity": 2.5}, "expected max_fidelity to be a whole number"),
        ({"min_fidelity": 28}, "min_fidelity to be at most max_fidelity=27, got 28"),
        ({"eta": 1}, "expected eta to be a whole number of at least 2"),
        ({"budget": -1}, "expected budget to be positive"),
        ({"budget": 26}, "expected budget to be at least 27"),
        ({"fresh_seeds": 0}, "expected fresh_seeds to be a whole number of at least 1"),
        ({"workers": 0}, "expected workers to be a whole number of at least 1"),
        ({"client": 3}, "expected client to be a distributed.Client, got int"),
        ({"resume": True}, "expected a folder whose search to resume"),
    ],
)
def test_bad_arguments_are_refused(changed, message):
    with pytest.raises(InputError, match=message):
        search(stopping_after(0), SPACE, **{**FEW, "method": "random", **changed})


def test_a_seed_that_is_no_number_is_refused():
    with pytest.raises(TypeError, match="expected seed to be a whole number"):
        search(stopping_after(0), SPACE, **FEW, method="random", seed="1")


@pytest.mark.parametrize(("of", "least"), [("dehb", 108), ("tpe", 40)])
def test_a_budget_without_a_whole_training_is_refused(of, least):
    pytest.importorskip(LIBRARY[of])
    few = {**FEW, "budget": least - 1}
    with pytest.raises(InputError, match=f"expected budget to be at least {least}"):
        search(stopping_after(0), SPACE, **few, method=of)
    result = search(train, SPACE, **{**FEW, "budget": least}, method=of)
    assert [one.fidelity for one in result.evaluations][-1] == 27


def test_fidelities_too_close_for_dehb_are_refused():
    pytest.importorskip("dehb")
    with pytest.raises(InputError, match="at least eta=3 times min_fidelity"):
        search(stopping_after(0), SPACE, min_fidelity=10, max_fidelity=29, budget=999)


def test_one_fidelity_is_enough_for_the_others():
    pytest.importorskip("optuna")
    for method in ("random", "tpe"):
        result = search(
            train, SPACE, min_fidelity=27, max_fidelity=27, budget=270, method=method
        )
        assert Counter(one.fidelity for one in result.evaluations) == {27: 10}


def test_missing_libraries_are_named_with_the_extra():
    script = f"""
import sys
for name in ("dehb", "optuna", "distributed", "ConfigSpace"):
    sys.modules[name] = None
from l2l_evograd.search import search
for method in {METHODS!r}:
    try:
        search(None, {{}}, min_fidelity=1, max_fidelity=3, budget=9, method=method)
    except ImportError as error:
        print(error)
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    lines = ran.stdout.splitlines()
    assert len(lines) == len(METHODS)
    for method, line in zip(METHODS, lines, strict=True):
        assert line.startswith(f"search with method={method!r} needs ConfigSpace")
        assert line.endswith("pip install 'l2l-evograd[search]'")


@pytest.mark.parametrize("method", ["dehb", "tpe"])
def test_the_library_that_is_missing_is_named(method, monkeypatch):
    monkeypatch.setitem(sys.modules, LIBRARY[method], None)
    with pytest.raises(ImportError, match=f"needs {LIBRARY[method]}, which cannot"):
        search(train, SPACE, **FEW, method=method)


def test_the_folder_contains_the_record_only(method, tmp_path, monkeypatch):
    folder, elsewhere = tmp_path / "new" / "folder", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    search(train, SPACE, **FEW, method=method, folder=str(folder))
    assert [path.name for path in folder.iterdir()] == [RECORD]
    assert list(elsewhere.iterdir()) == []
