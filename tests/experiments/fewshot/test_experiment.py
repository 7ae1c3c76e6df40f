import io
import json

import pytest
from rich.console import Console
from small_tasks import tiny_experiment, tiny_settings

from l2l_evograd.experiments.fewshot.methods import METHODS
from l2l_evograd.experiments.fewshot.report import conclusions, results_table
from l2l_evograd.experiments.fewshot.results import FewShotResults, accuracy_by_seed

COSTS = (*("seconds", "process_seconds", "seconds_per_iteration", "peak_memory_bytes"),)


def without_costs(runs):
    return [{k: v for k, v in run.items() if k not in COSTS} for run in runs]


def test_a_run_keeps_the_figures_of_every_method_and_seed(tmp_path):
    methods = ("maml", "warpgrad", "aruba", "aruba++")
    experiment = tiny_experiment(tmp_path, methods=methods)
    results = experiment.run()
    kept = [(run["seed"], run["method"]) for run in results.runs]
    assert kept == [(0, method) for method in methods]
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["runs"] == results.runs
    assert content["data"]["classes"] == {"train": 5, "validation": 5, "test": 5}
    for run in results.runs:
        each = experiment.settings.gradients_per_iteration(METHODS[run["method"]])
        assert run["iterations"] == 1000 // each
        assert run["gradients"] == run["iterations"] * each <= 1000
        assert len(run["adaptation"]) == len(run["half_intervals"]) == 4
        assert run["seconds"] > 0 and run["process_seconds"] > 0
        assert (run["peak_memory_bytes"] is None) == (run["method"] == "aruba++")
    # Before the first step, both see the same weights.
    one, other = (results.of(method)[0] for method in ("aruba", "aruba++"))
    assert one["adaptation"][0] == other["adaptation"][0]
    assert one["curve"] == other["curve"]
    experiment.draw(results)
    names = {path.name for path in tmp_path.glob("*.png")}
    assert names == {"adaptation.png", "training.png"}


def test_a_method_does_not_depend_on_the_others(tmp_path):
    both = tiny_experiment(tmp_path / "both", methods=("aruba++", "fomaml")).run()
    alone = tiny_experiment(tmp_path / "alone", methods=("fomaml",)).run()
    assert without_costs(both.of("fomaml")) == without_costs(alone.runs)
    assert both.of("aruba++")[0]["peak_memory_bytes"] is not None


def test_a_budget_of_seconds_is_kept_by_a_run_that_is_resumed(tmp_path):
    options = {"methods": ("reptile",), "gradients": None, "seconds": 0.2}
    results = tiny_experiment(tmp_path, **options).run()
    (run,) = results.runs
    assert run["iterations"] >= 1
    experiment = tiny_experiment(tmp_path, **options)
    experiment._module = None  # type: ignore[assignment,method-assign]  # no pilot
    assert experiment._total(METHODS["reptile"], None, 0) == run["iterations"]
    experiment.draw(results)


def made_up(tmp_path, gains, **changes):
    """Results in which each method is above MAML by a number of points."""
    methods = ("maml", *gains)
    settings = tiny_settings(methods=methods, seeds=3, **changes)
    results = FewShotResults(tmp_path, settings, {})
    for seed in range(3):
        for method in methods:
            top = 0.5 + 0.01 * seed + gains.get(method, 0.0) * (1 + 0.01 * seed)
            results.runs.append(
                {
                    "seed": seed,
                    "method": method,
                    "adaptation": [0.2, 0.3, 0.4, top],
                    "half_intervals": [0.01] * 4,
                    "iterations": 10,
                    "gradients": 990,
                    "seconds": 2.0,
                    "process_seconds": 3.0,
                    "seconds_per_iteration": 0.2,
                    "peak_memory_bytes": None if method == "aruba++" else 2**20,
                    "curve": [],
                }
            )
    return results


def test_the_summary_is_over_seeds(tmp_path):
    results = made_up(tmp_path, {"aruba++": 0.1})
    row, plus = results.summary()
    assert row["at_steps"] == pytest.approx(0.4) and row["at_steps_error"] < 1e-9
    assert row["at_end"] == pytest.approx(0.51)
    assert row["at_end_error"] == pytest.approx(0.01 / 3**0.5)
    assert row["best_step"] == 3
    assert plus["peak_memory_bytes"] is None
    assert accuracy_by_seed(results, "maml", 3)[2] == pytest.approx(0.52)


def test_one_seed_has_an_interval_over_tasks(tmp_path):
    results = made_up(tmp_path, {})
    results.runs = results.runs[:1]
    (row,) = results.summary()
    assert row["at_end_error"] == 0.01


def test_each_method_is_compared_with_maml_and_with_its_control(tmp_path):
    gains = {"warpgrad-frozen": 0.0, "warpgrad": 0.1, "reptile": 0.2, "aruba": 0.1}
    lines = conclusions(made_up(tmp_path, gains))
    assert lines[0] == "Accuracy on new classes after 3 steps:"
    compared = [tuple(line.split(": ")[0].split(" against ")) for line in lines[1:2]]
    assert compared == [("warpgrad-frozen", "maml")]
    text = "\n".join(lines)
    for own, place, other in (
        ("warpgrad", "above", "maml"),
        ("warpgrad", "above", "warpgrad-frozen"),
        ("aruba", "below", "reptile"),
    ):
        assert any(f" {own} is " in x and f"{place} {other}" in x for x in lines), text
    assert len(lines) == 1 + 4 + 2
    assert conclusions(made_up(tmp_path, {})) == []


def test_without_maml_the_first_method_is_the_baseline(tmp_path):
    results = made_up(tmp_path, {"reptile": 0.0, "aruba": 0.1})
    results.runs = [run for run in results.runs if run["method"] != "maml"]
    lines = conclusions(results)
    assert len(lines) == 2 and "reptile" in lines[1]


@pytest.mark.parametrize("test_steps", [1, 2, 3])
def test_the_table_fits_and_says_what_it_shows(test_steps, tmp_path):
    results = made_up(tmp_path, {"aruba++": 0.1}, test_steps=test_steps)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(results_table(results.summary(), results.settings, "Accuracy"))
    text = " ".join(console.export_text().split())
    assert "…" not in text
    assert f"{test_steps} steps" in text and "standard error over 3 seeds" in text
    assert ("40.0 ± 0.0" in text) == (test_steps >= 2)
    if test_steps == 3:
        assert "51.0 ± 0.6" in text


def test_bad_data_is_refused_before_anything_is_written(tmp_path):
    for changes, message in (
        ({"ways": 6}, "has 5 classes, too few for 6 ways: lower ways to 5"),
        ({"test_queries": 6}, "lower the sum of shots and test_queries to 6"),
        ({"queries": 6}, "too few for 3 shots and 6 queries"),
        ({"train_shots": 7}, "too few for 7 shots: lower train_shots to 6"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny_experiment(tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()
