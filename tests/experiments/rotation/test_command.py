import json
from pathlib import Path

import pytest
from idx import write_digits
from rich.console import Console

from l2l_evograd import cli
from l2l_evograd.experiments.folder import read_settings
from l2l_evograd.experiments.rotation.command import rotation


@pytest.fixture
def tiny(tmp_path: Path) -> list[str]:
    write_digits(tmp_path / "mnist", "t10k", 60)
    return [
        *("rotation", "--data", str(tmp_path / "mnist"), "--iterations", "2"),
        *("--methods", "none,guided", "--batch-size", "8", "--seeds", "1"),
        *("--out", str(tmp_path / "run")),
    ]


def content(out: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((out / "results.json").read_text())
    return found


def test_a_run_leaves_its_files_and_takes_more_seeds(tiny, tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main(tiny) == 0
    assert {path.name for path in out.iterdir()} == {
        *("settings.json", "results.json", "angle.png", "accuracy.png"),
        *("settings.previous.json", "results.previous.json"),
    }
    text = capsys.readouterr().out
    assert "turned by 30 degrees" in text and "guided" in text
    first = content(out)
    assert first["data"]["train"] == 36  # type: ignore[index]
    assert [(run["seed"], run["method"]) for run in first["runs"]] == [  # type: ignore[attr-defined]
        (0, "none"),
        (0, "guided"),
    ]
    resume = ["rotation", "--resume", "--out", str(out)]
    assert cli.main([*resume, "--seeds", "2"]) == 0
    second = content(out)
    assert second["runs"][:2] == first["runs"]  # type: ignore[index]
    assert [row["seeds"] for row in second["summary"]] == [2, 2]  # type: ignore[attr-defined]
    assert "standard deviation over 2 seeds" in capsys.readouterr().out
    assert cli.main([*resume, "--seeds", "1"]) == 0
    assert content(out) == second
    assert cli.main([*resume, "--lr", "0.5"]) == 2
    assert "--lr 0.001, got 0.5" in capsys.readouterr().err
    assert cli.main(tiny) == 2
    assert "replace it (--overwrite)" in capsys.readouterr().err
    assert cli.main([*tiny, "--overwrite"]) == 0
    assert len(content(out)["runs"]) == 2  # type: ignore[arg-type]


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
    out = tmp_path / "a run"
    with pytest.raises(KeyboardInterrupt) as interrupt:
        rotation(given, out=out, console=InterruptedAt("guided:"))
    assert str(interrupt.value) == (
        f"interrupted; resume with: l2l-evograd rotation --resume --out '{out}'"
    )
    assert cli.main(["rotation", "--resume", "--out", str(out)]) == 0
    timeless = [
        [{k: v for k, v in run.items() if "seconds" not in k} for run in found["runs"]]  # type: ignore[attr-defined]
        for found in (content(tmp_path / "run"), content(out))
    ]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "maml"], "expected methods to be one of 'none', 'evograd'"),
        (["--methods", ","], "expected methods to be one or more of"),
        (["--data", "/nowhere"], "expected a folder with MNIST's files, got /nowhere"),
        (["--seeds", "0"], "expected seeds to be a whole number of at least 1, got 0"),
        (
            ["--candidates", "1"],
            "expected candidates to be a whole number of at least 2",
        ),
        (["--lr", "-1"], "expected lr to be positive and finite"),
        (["--meta-lr", "0"], "expected meta_lr to be positive and finite"),
        (["--iterations", "many"], "Invalid value for --iterations"),
        (["--resume"], "no run to resume"),
        (["--resume", "--overwrite"], "--resume or --overwrite, got both"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(arguments, message, tmp_path, capsys):
    assert cli.main(["rotation", "--out", str(tmp_path / "run"), *arguments]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("error: ") and message in line
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_cut_file_is_one_line_and_leaves_nothing(tiny, tmp_path, capsys):
    images = tmp_path / "mnist" / "t10k-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:1000])
    assert cli.main(tiny) == 2
    assert f"error: {images} is cut short or damaged" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_kind_is_not_gone_on_with(tmp_path, capsys):
    settings = tmp_path / "settings.json"
    settings.write_text('{"trials": 100, "seed": 0}')
    arguments = ["rotation", "--resume", "--out", str(tmp_path)]
    assert cli.main(arguments) == 2
    assert "settings.json has no digest" in capsys.readouterr().err
    settings.write_text("{")
    assert cli.main(arguments) == 2
    assert "settings.json is not JSON" in capsys.readouterr().err
    settings.write_text("[]")
    assert cli.main(arguments) == 2
    assert "settings.json to contain an object" in capsys.readouterr().err
