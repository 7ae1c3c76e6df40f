import json
from pathlib import Path
from typing import Any

import pytest
from idx import write_digits
from rich.console import Console

from l2l_evograd import cli
from l2l_evograd.experiments.search.command import search
from l2l_evograd.experiments.search.problem import Problem

pytest.importorskip("dehb")

SPACE = ["--space", "lr=1e-3..1e-1:log", "--space", "candidates=2,3"]


@pytest.fixture
def tiny(tmp_path: Path) -> list[str]:
    write_digits(tmp_path / "mnist", "t10k", 60)
    return [
        *("search", "rotation", *SPACE, "--fidelity", "1..3", "--budget", "3"),
        *("--set", f"data={tmp_path / 'mnist'}", "--set", "batch-size=8"),
        *("--fresh-seeds", "2"),
    ]


def content(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_search_writes_settings_that_the_command_accepts(tiny, tmp_path, capsys):
    out = tmp_path / "run"
    line = [*tiny, "--methods", "dehb,random", "--out", str(out)]
    assert cli.main(line) == 0
    assert {path.name for path in out.iterdir()} == {
        *("settings.json", "results.json", "search.png", "best.json", "searches"),
        *("settings.previous.json", "results.previous.json"),
    }
    said = capsys.readouterr().out
    assert "lr 0.001..0.1:log; candidates 2,3" in said
    assert "default settings" in said and "Loss of random against dehb" in said
    results = content(out / "results.json")
    dehb, random = results["runs"]
    assert dehb["default"] == {"lr": 0.001, "candidates": 2}
    assert dehb["default_losses"] == random["default_losses"]
    assert {e["fidelity"] for e in dehb["evaluations"]} == {1, 3}
    for run in (dehb, random):
        # The winner was trained to the end, within the budget.
        whole = [e for e in run["evaluations"] if e["fidelity"] == 3]
        best = min(whole, key=lambda e: e["loss"])
        assert (best["config"], best["loss"]) == (run["best"], run["searched_loss"])
        assert sum(e["fidelity"] for e in run["evaluations"]) == 3 * run["spent"] <= 9
        # Nobody has seen the fresh seeds.
        searched = {e["seed"] for e in run["evaluations"]}
        assert len(set(run["fresh_seeds"])) == 2
        assert not searched & set(run["fresh_seeds"])
    winner = min((dehb, random), key=lambda run: sum(run["losses"]))
    found = content(out / "best.json")
    assert found == {
        **{"data": str(tmp_path / "mnist"), "batch_size": 8, "methods": ["evograd"]},
        **{**winner["best"], "iterations": 3},
    }
    settings = [
        "--config",
        str(out / "best.json"),
        "--out",
        str(tmp_path / "trained"),
    ]
    seed = str(winner["fresh_seeds"][0])
    assert cli.main(["rotation", *settings, "--seeds", "1", "--seed", seed]) == 0
    (trained,) = content(tmp_path / "trained" / "results.json")["runs"]
    assert trained["validation_loss"] == winner["losses"][0]
    control = ["--lr", "0.001", "--candidates", "2", "--overwrite"]
    line = ["rotation", *settings, "--seeds", "1", "--seed", seed, *control]
    assert cli.main(line) == 0
    (trained,) = content(tmp_path / "trained" / "results.json")["runs"]
    assert trained["validation_loss"] == winner["default_losses"][0]


def test_an_interrupted_search_ends_as_one_that_was_not(tiny, tmp_path, monkeypatch):
    assert cli.main([*tiny, "--out", str(tmp_path / "whole")]) == 0
    out, calls = tmp_path / "a run", []
    train = Problem.__call__

    def interrupted(self, *arguments):
        calls.append(arguments)
        if len(calls) == 4:
            (self.folder / "half").mkdir(parents=True)
            raise KeyboardInterrupt
        return train(self, *arguments)

    monkeypatch.setattr(Problem, "__call__", interrupted)
    given = content(tmp_path / "whole" / "settings.json")
    with pytest.raises(KeyboardInterrupt, match="search --resume --out '"):
        own = {k: v for k, v in given.items() if v is not None}
        for name in ("format", "command", "digest", "space"):
            own.pop(name, None)
        own.update(methods=("dehb",), space=given["space"])
        search(own, out=out, console=Console(quiet=True))
    assert not (out / "trainings").exists() and not (out / "best.json").exists()
    assert cli.main(["search", "--resume", "--out", str(out)]) == 0
    # Three were kept.
    total = len(content(out / "results.json")["runs"][0]["evaluations"]) + 2 + 2
    assert len(calls) == 1 + total
    found, expected = (
        content(folder / "results.json")["runs"] for folder in (out, tmp_path / "whole")
    )
    for run in (*found, *expected):
        for evaluation in run["evaluations"]:
            del evaluation["seconds"]
        del run["seconds"]
    assert found == expected
    assert content(out / "best.json") == content(tmp_path / "whole" / "best.json")


def test_a_finished_search_is_resumed_or_replaced(tiny, tmp_path, capsys):
    out = tmp_path / "run"
    line = [*tiny, "--methods", "random", "--budget", "2", "--fresh-seeds", "1"]
    line += ["--out", str(out)]
    assert cli.main(line) == 0
    first = content(out / "results.json")
    assert cli.main(line) == 2
    assert "replace it (--overwrite)" in capsys.readouterr().err
    assert cli.main([*line, "--resume"]) == 0
    assert content(out / "results.json") == first
    assert cli.main([*line, "--resume", "--seeds", "2"]) == 0
    second = content(out / "results.json")["runs"]
    assert second[0] == first["runs"][0] and second[1]["seed"] == 1
    capsys.readouterr()
    assert cli.main([*line, "--resume", "--budget", "4"]) == 2
    assert "expected --budget 2.0, got 4.0" in capsys.readouterr().err
    assert cli.main([*line, "--overwrite", "--seed", "1"]) == 0
    (run,) = content(out / "results.json")["runs"]
    assert run["best"] == second[1]["best"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected the command whose settings are searched, one of crossdomain, f"),
        (["illustrate"], "noisy-labels', 'rotation', got 'illustrate'"),
        (["rotation", "--space", "rate=1..2"], "has no setting rate: expected methods"),
        (
            ["rotation", "--space", "lr=1..2", "--space", "lr=2..3"],
            "once for lr, got it",
        ),
        (["rotation", "--space", "lr"], "expected --space NAME=LOW..HIGH, NAME=LOW"),
        (["rotation", "--space", "lr=-1..2"], "contains lr=-1.0: expected lr to be p"),
        (["rotation", "--space", "candidates=1..2"], "contains candidates=1: expected"),
        (["rotation", "--set", "rate=1"], "has no setting rate: expected methods"),
        (["rotation", "--set", "seed=1"], "use --seed for the search's"),
        (
            ["rotation", "--set", "data=/nowhere"],
            "expected a folder with MNIST's files",
        ),
        (
            ["rotation", "--config", "/nowhere"],
            "expected --config to be a JSON, YAML or TOML f",
        ),
        (
            ["rotation", "--fidelity", "0..9"],
            "expected iterations to be a whole number",
        ),
        (["rotation", "--budget", "1"], "expected budget to be at least"),
        (["rotation", "--eta", "1"], "expected eta to be a whole number of at least 2"),
        (
            ["rotation", "--methods", "grid"],
            "expected methods to be one of 'dehb', 'ra",
        ),
        (["rotation", "--resume"], "no run to resume"),
        (["--resume"], "expected the command whose settings"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(arguments, message, tmp_path, capsys):
    line = ["search", *arguments, "--out", str(tmp_path / "run")]
    assert cli.main(line) == 2
    captured = capsys.readouterr()
    (shown,) = captured.err.strip().splitlines()
    assert shown.startswith("error: ") and message in shown
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::UserWarning")  # estimators say what they see
def test_a_search_in_which_everything_diverges_says_so(tiny, tmp_path, capsys):
    out = tmp_path / "run"
    line = [*tiny, "--methods", "random", "--space", "meta_lr=1,2", "--out", str(out)]
    line[line.index("lr=1e-3..1e-1:log")] = "lr=9e5..1e6"
    assert cli.main(line) == 0
    (run,) = content(out / "results.json")["runs"]
    assert run["best"] is None and None in run["losses"]
    assert not (out / "best.json").exists()
    said = capsys.readouterr().out
    assert "every whole training diverged" in said
    assert "No best.json, because trainings with the result diverged." in said
