import json
import math

import numpy as np
import pytest

from benchmarks.accuracy import main, measure
from benchmarks.accuracy_problems import (
    COLUMNS,
    EXACT,
    FIXED,
    GUIDED,
    NONE,
    PROBLEMS,
    Problem,
    Training,
)
from benchmarks.accuracy_records import ITERATIONS, TIME, markdown
from benchmarks.measuring import wide_console

# Lightning asks newer releases of torch in a way that they deprecate.
pytestmark = pytest.mark.filterwarnings(r"ignore:.*isinstance\(treespec, LeafSpec\)")


def pretended(accuracy: bool, calls: list) -> Problem:
    """A problem whose figures are known: exact takes three times as long as none."""
    seconds = {"plain": 0.01, "best": 0.03, "control": 0.01}
    # The gain of a method, and how far it goes up and down with the seed.
    bonus = {"plain": (0.0, 0.0), "best": (0.2, 0.0005), "control": (0.0, 0.1)}

    def quality(method, seed, count):
        always, varying = bonus[method]
        gain = always + varying * (-1) ** seed
        return 0.5 + gain + 0.001 * count + 0.01 * seed

    def train(iterations, seeds, folder):
        calls.append(dict(iterations))
        return {
            method: [
                Training(quality(method, s, count), seconds[method]) for s in seeds
            ]
            for method, count in iterations.items()
        }

    methods = {NONE: "plain", EXACT: "best", FIXED: "control"}
    return Problem("pretended", methods, 10, "quality", accuracy, train)


def test_equal_iterations_then_equal_time():
    calls: list = []
    records = measure(pretended(True, calls), range(4), wide_console(120))
    # In equal time the exact method would give what it gave, and is not run again.
    assert calls == [
        {"plain": 10, "best": 10, "control": 10},
        {"plain": 30, "control": 30},
    ]
    assert [(r["budget"], r["method"], r["iterations"]) for r in records] == [
        *((ITERATIONS, name, 10) for name in ("plain", "best", "control")),
        *((TIME, name, count) for name, count in (("plain", 30), ("best", 10))),
        (TIME, "control", 30),
    ]
    plain, best, control = records[:3]
    assert best["qualities"] == pytest.approx([0.7105, 0.7195, 0.7305, 0.7395])
    assert best["mean"] == pytest.approx(0.725)
    error = np.std(best["qualities"], ddof=1) / 2
    assert best["error"] == pytest.approx(error)
    assert best["gain"] == pytest.approx(0.2)
    assert best["gain_error"] == pytest.approx(np.std([5e-4, -5e-4] * 2, ddof=1) / 2)
    assert best["shown"] and not control["shown"] and not plain["shown"]
    assert control["gain_error"] == pytest.approx(np.std([0.1, -0.1] * 2, ddof=1) / 2)
    assert plain["training_seconds"] == pytest.approx(0.1)
    assert records[4]["gain"] == pytest.approx(0.18)  # none has learned for longer


def test_an_error_gains_where_it_falls():
    records = measure(pretended(False, []), range(3), wide_console(120))
    assert records[1]["gain"] == pytest.approx(-0.2, abs=1e-3) and records[1]["shown"]
    (_, _, row) = markdown(records, ITERATIONS)
    assert row == (
        "| pretended (quality, lower is better) | 0.520 |  |  |  | "
        "0.720 (-0.200 ± 0.000: worse) | 0.553 (-0.033 ± 0.067) |"
    )


def test_the_table_has_a_row_for_each_problem_and_bold_gains():
    records = measure(pretended(True, []), range(3), wide_console(120))
    head, rule, row = markdown(records, TIME)
    assert head == "| equal time | " + " | ".join(COLUMNS) + " |"
    assert rule.count("---") == len(COLUMNS) + 1
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        *("pretended (quality, %)", "54.0", "", "", "", "**72.0 (+18.0 ± 0.0)**"),
        "57.3 (+3.3 ± 6.7)",
    ]


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_problem_trains_by_every_column_it_has(name, tmp_path):
    problem = PROBLEMS[name](True)
    assert problem.name == name
    assert {NONE, GUIDED, EXACT} <= set(problem.methods) <= set(COLUMNS)
    # The simplest and the dearest method; the others are those of the commands.
    chosen = {problem.methods[column]: 2 for column in (NONE, EXACT)}
    found = problem.train(chosen, [3, 4], tmp_path)
    assert {method: len(own) for method, own in found.items()} == dict.fromkeys(
        chosen, 2
    )
    for own in found.values():
        for training in own:
            assert (
                math.isfinite(training.quality) and training.seconds_per_iteration > 0
            )


def test_a_second_call_keeps_the_records_of_other_problems(tmp_path, capsys):
    out, picture = tmp_path / "made" / "accuracy.json", tmp_path / "accuracy.png"
    options = ["--config", "smoke", "--json", str(out), "--picture", str(picture)]
    main([*options, "--problem", "loss weights"])
    first = json.loads(out.read_text())["records"]
    assert {record["problem"] for record in first} == {"loss weights"}
    main([*options, "--problem", "weight decay"])
    main([*options, "--problem", "weight decay"])
    content = json.loads(out.read_text())
    assert content["records"][: len(first)] == first
    assert len(content["records"]) == 2 * len(first) == 24
    assert content["config"]["seeds"] == 2 and content["environment"]["threads"] == 1
    assert picture.stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "| weight decay (‖θ − θ*‖, lower is better) |" in printed
