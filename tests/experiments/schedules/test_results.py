"""The summary, the table and the conclusions, from runs written by hand."""

import io

import pytest
from rich.console import Console

from l2l_evograd.experiments.schedules.report import conclusions, results_table
from l2l_evograd.experiments.schedules.results import SchedulesResults, test_losses

losses_of = test_losses  # so that pytest does not take it for a test
del test_losses


def run(method: str, seed: int, losses: list[float | None]) -> dict[str, object]:
    fresh = [
        None
        if loss is None
        else {
            **{"validation_loss": loss - 0.1, "validation_accuracy": 0.9},
            **{"test_loss": loss, "test_accuracy": 1 - loss},
        }
        for loss in losses
    ]
    return {
        **{"method": method, "seed": seed, "fresh": fresh, "searched_loss": 0.05},
        **{"runs": 4, "gradients": 800, "seconds": 2.0},
    }


def results(tmp_path, settings, methods, runs) -> SchedulesResults:
    found = SchedulesResults(tmp_path, settings(methods=methods), {})
    found.runs += runs
    return found


def test_the_summary_tells_searches_from_new_runs(tmp_path, settings):
    runs = [run("fds", 0, [0.2, 0.4]), run("fds", 1, [0.5, 0.5])]
    runs.append(run("constant", 0, [0.3, None]))
    constant, fds = results(
        tmp_path, settings, ("constant", "fds", "greedy"), runs
    ).summary()
    assert (fds["seeds"], fds["diverged"], fds["gradients"]) == (2, 0, 800)
    assert fds["test_loss"] == pytest.approx(0.4)
    assert fds["test_loss_sd"] == pytest.approx(0.02**0.5)  # of 0.3 and 0.5
    assert fds["test_loss_fresh_sd"] == pytest.approx(0.01**0.5)  # of 0.02 and 0
    assert fds["validation_loss"] == pytest.approx(0.3)
    assert constant["test_loss"] is None and constant["diverged"] == 1


def test_the_table_shows_the_summary(tmp_path, settings):
    runs = [run("fds", 0, [0.2, 0.4]), run("fds", 1, [0.5, 0.5])]
    runs += [run("constant", 0, [0.3, None]), run("constant", 1, [0.3, 0.3])]
    made = results(tmp_path, settings, ("constant", "fds"), runs)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(results_table(made.summary(), made.settings, "title"))
    text = console.export_text()
    lines = {line.split()[1]: line for line in text.splitlines() if "│" in line}
    # In 80 columns, also with the longest name.
    assert "0.400 ± 0.141" in lines["fds"] and "60.0 ± 14.1" in lines["fds"]
    assert "0.100" in lines["fds"] and " 2 " in lines["fds"]
    assert max(len(line) for line in text.splitlines()) <= 80
    assert lines["constant"].count("diverged") == 2
    assert "standard deviation between searches" in " ".join(text.split())


def test_conclusions_compare_by_seed(tmp_path, settings):
    methods = ("constant", "greedy", "fds")
    runs = [
        *(run("constant", seed, [0.3 + 0.1 * seed]) for seed in range(3)),
        *(run("greedy", seed, [0.4, None]) for seed in range(3)),
        *(run("fds", seed, [0.2 + 0.1 * seed + 0.001 * seed]) for seed in range(3)),
    ]
    made = results(tmp_path, settings, methods, runs)
    assert losses_of(made, "greedy") == {}
    assert conclusions(made) == [
        "greedy: 3 of 6 new training runs diverged.",
        "Test loss of the new training runs:",
        "Over 3 searches, fds is 0.0990 ± 0.0006 below constant (mean ± standard "
        "error, paired by seed): shown.",
    ]
    made.runs = [run for run in made.runs if run["seed"] == 0]
    assert conclusions(made)[-1].startswith(
        "fds against constant: -0.1000 over 1 search: nothing can be said"
    )
    made.runs = [run("constant", s, [0.3]) for s in range(3)]
    made.runs += [run("fds", s, [0.25 + 0.1 * s]) for s in range(3)]
    assert conclusions(made)[-1] == (
        "fds against constant: +0.0500 ± 0.0577 over 3 searches: not shown."
    )
