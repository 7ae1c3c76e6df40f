import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch
from idx import write_digits
from rich.console import Console

from l2l_evograd import cli
from l2l_evograd.experiments.folder import read_settings
from l2l_evograd.experiments.schedules.command import schedules
from l2l_evograd.experiments.schedules.problem import Problem


@pytest.fixture
def tiny(tmp_path: Path) -> list[str]:
    write_digits(tmp_path / "mnist", "t10k", 60)
    return [
        *("schedules", "--data", str(tmp_path / "mnist"), "--steps", "4"),
        *("--methods", "constant,fds,reversible", "--windows", "2", "--budget", "40"),
        *("--batch-size", "8", "--seeds", "1", "--fresh-seeds", "2"),
        *("--out", str(tmp_path / "run")),
    ]


def content(out: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((out / "results.json").read_text())
    return found


def timeless(out: Path) -> list[dict[str, object]]:
    runs = content(out)["runs"]
    return [{k: v for k, v in run.items() if k != "seconds"} for run in runs]  # type: ignore[attr-defined]


def test_a_run_leaves_its_files_and_takes_more_seeds(tiny, tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main(tiny) == 0
    assert {path.name for path in out.iterdir()} == {
        *("settings.json", "results.json", "schedules.png", "training.png"),
        *("settings.previous.json", "results.previous.json"),
    }
    text = capsys.readouterr().out
    assert "24 training, 12 validation and 24 test images" in text
    first = content(out)
    rows = {line.split()[1]: line for line in text.splitlines() if "│" in line}
    for row in first["summary"]:  # type: ignore[attr-defined]
        shown = rows[row["method"]]
        assert f"{row['test_loss']:.3f}" in shown
        assert f"{100 * row['test_accuracy']:.1f}" in shown
        assert f"{row['searched_loss']:.3f}" in shown
    resume = ["schedules", "--resume", "--out", str(out)]
    assert cli.main([*resume, "--seeds", "2"]) == 0
    second = content(out)
    assert second["runs"][:3] == first["runs"]  # type: ignore[index]
    assert [row["seeds"] for row in second["summary"]] == [2] * 3  # type: ignore[attr-defined]
    assert cli.main([*resume, "--steps", "5"]) == 2
    assert "--steps 4, got 5" in capsys.readouterr().err
    assert cli.main(tiny) == 2
    assert "replace it (--overwrite)" in capsys.readouterr().err


class InterruptedAt(Console):
    """A console at which the user presses Ctrl-C when it says something."""

    def __init__(self, text: str) -> None:
        super().__init__(quiet=True)
        self.text = text

    def print(self, *said, **options):
        if self.text in str(said[0]):
            raise KeyboardInterrupt
        super().print(*said, **options)


def test_an_interrupted_run_ends_as_one_that_was_not(tiny, tmp_path):
    assert cli.main(tiny) == 0
    _, given = read_settings(tmp_path / "run")
    out = tmp_path / "another"
    with pytest.raises(KeyboardInterrupt, match="l2l-evograd schedules --resume"):
        schedules(given, out=out, console=InterruptedAt("reversible:"))
    assert len(content(out)["runs"]) == 2  # type: ignore[arg-type]
    assert cli.main(["schedules", "--resume", "--out", str(out)]) == 0
    assert timeless(out) == timeless(tmp_path / "run")


def test_a_run_without_a_schedule_is_reported(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Problem, "outer_loss", lambda *_: torch.tensor(math.nan))
    assert cli.main(tiny) == 0
    text = capsys.readouterr().out
    assert "every run diverged" in text
    assert "fds: 2 of 2 new training runs diverged." in text
    row = content(tmp_path / "run")["summary"][0]  # type: ignore[index]
    assert (row["test_loss"], row["diverged"], row["searched_loss"]) == (None, 2, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "magic"], "expected methods to be one of 'constant', 'cosine'"),
        (["--data", "/nowhere"], "with train/<class> and test/<class>, got /nowhere"),
        (["--network", "vit"], "expected network to be one of 'mlp', 'conv'"),
        (["--seeds", "0"], "expected seeds to be a whole number of at least 1, got 0"),
        (["--fresh-seeds", "0"], "fresh_seeds to be a whole number of at least 1"),
        (["--windows", "300"], "expected at most 200 windows"),
        (
            ["--budget", "1900"],
            "fds takes 1984 gradients until its first training run is over",
        ),
        (["--methods", "dehb", "--budget", "598"], "dehb takes 599 gradients until"),
        (["--methods", "dehb", "--steps", "23"], "expected at least 24 steps for 8"),
        (["--momentum", "1"], "expected momentum to be below 1, got 1"),
        (["--momentum", "0"], "reversible cannot take back a run without momentum"),
        (["--lr", "2"], "lr_least below lr_most, got 0.001, 2.0 and 1.0"),
        (["--lr-least", "0.1", "--lr-most", "0.1"], "got 0.1, 0.1 and 0.1"),
        (["--meta-lr", "0"], "expected meta_lr to be positive and finite"),
        (["--steps", "many"], "Invalid value for --steps"),
        (["--resume"], "no run to resume"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(arguments, message, tmp_path, capsys):
    assert cli.main(["schedules", "--out", str(tmp_path / "run"), *arguments]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("error: ") and message in line
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_names_the_extra_if_its_method_is_chosen(
    tiny, tmp_path, capsys, monkeypatch
):
    there = importlib.util.find_spec

    def absent(name, *rest):
        return None if name in ("dehb", "ConfigSpace") else there(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", absent)
    assert cli.main([*tiny, "--windows", "1", "--methods", "constant,dehb"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "dehb cannot run without dehb and ConfigSpace" in line
    assert "pip install 'l2l-evograd[search]'" in line
    assert not (tmp_path / "run").exists()
    assert cli.main(tiny) == 0
