import math
from pathlib import Path
from typing import Any

from l2l_evograd.experiments.search.report import conclusions
from l2l_evograd.experiments.search.results import SearchResults, best_of, mean_loss
from l2l_evograd.experiments.search.settings import SearchSettings


def run(method: str, seed: int, losses: list[float | None], **more: Any) -> Any:
    return {
        **{"method": method, "seed": seed, "losses": losses, "best": {"lr": seed}},
        **{"default": {"lr": 0.1}, "default_losses": [1.0, 1.1, 1.3]},
        **{"searched_loss": 0.1, "evaluations": [{}] * 4, "spent": 2.0, "seconds": 3.0},
        **more,
    }


def results(*runs: Any) -> SearchResults:
    settings = SearchSettings(methods=("dehb", "random"), seeds=3)
    made = SearchResults(Path("nowhere"), settings, {})
    made.runs = list(runs)
    return made


def test_the_best_search_has_the_lowest_loss_on_fresh_seeds():
    runs = [run("dehb", 0, [0.5, 0.7]), run("dehb", 1, [0.4, 0.6]), run("dehb", 2, [])]
    assert best_of(runs) is runs[1]
    assert best_of([run("dehb", 0, [0.1, None])]) is None
    assert mean_loss([0.5, 0.7]) == 0.6 and mean_loss([0.5, None]) == math.inf


def test_a_summary_has_the_defaults_and_each_method():
    default, dehb = results(
        run("dehb", 0, [0.5, 0.7]), run("dehb", 1, [0.4, 0.6])
    ).summary()
    assert (default["method"], default["best"]) == ("default", {"lr": 0.1})
    assert round(default["loss"], 9) == round(3.4 / 3, 9)
    assert (dehb["best"], dehb["seeds"], dehb["trainings"]) == ({"lr": 1}, 2, 4)
    assert round(dehb["loss"], 9) == 0.55
    (_, one) = results(run("dehb", 0, [0.5, None], searched_loss=None)).summary()
    assert (one["loss"], one["loss_sd"], one["searched_loss"]) == (None, None, None)
    assert results().summary() == []


def test_one_search_is_compared_over_its_fresh_seeds():
    lines = conclusions(results(run("dehb", 0, [0.5, 0.61, 0.8])))
    assert lines[0] == (
        "Loss of dehb against the default settings: -0.4967 ± 0.0033 over 3 fresh "
        "seeds: shown."
    )


def test_several_searches_are_compared_over_the_searches():
    runs = [run("dehb", seed, [0.5 + seed, 0.7]) for seed in range(3)]
    runs += [run("random", seed, [0.5 + seed, 0.7]) for seed in range(3)]
    lines = conclusions(results(*runs))
    assert "over 3 searches: not shown." in lines[0]
    assert lines[2].startswith("Loss of random against dehb: +0.0000 ± 0.0000 over 3 s")
    diverged = conclusions(results(run("dehb", 0, [0.5, None])))
    assert diverged[0].endswith("trainings on fresh seeds diverged.")
