import json
from pathlib import Path

import pytest
from idx import write_digits

from l2l_evograd import cli
from l2l_evograd.illustrations import rotation_command
from l2l_evograd.illustrations.rotation_results import RotationResults
from l2l_evograd.illustrations.settings import RotationSettings


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


def test_the_defaults_of_the_options_are_those_of_the_settings(monkeypatch):
    seen: dict[str, object] = {}
    monkeypatch.setattr(
        rotation_command, "rotation", lambda options, **_: seen.update(options)
    )
    assert cli.main(["rotation"]) == 0
    assert RotationSettings(**seen) == RotationSettings()  # type: ignore[arg-type]


def test_a_run_leaves_its_files_and_takes_more_seeds(tiny, tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main(tiny) == 0
    assert {path.name for path in out.iterdir()} == {
        *("settings.json", "results.json", "angle.png", "accuracy.png")
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
    assert "--lr is 0.001 there, 0.5 here" in capsys.readouterr().err
    assert cli.main(tiny) == 2
    assert "replace it (--overwrite)" in capsys.readouterr().err
    assert cli.main([*tiny, "--overwrite"]) == 0
    assert len(content(out)["runs"]) == 2  # type: ignore[arg-type]


def test_an_interrupted_run_ends_as_one_that_was_not(
    tiny, tmp_path, capsys, monkeypatch
):
    assert cli.main(tiny) == 0
    whole = content(tmp_path / "run")
    honest = rotation_command.train

    def interrupting(method, *rest):
        if method == "guided":
            raise KeyboardInterrupt
        return honest(method, *rest)

    out = tmp_path / "a run"
    arguments = [*tiny[:-1], str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(rotation_command, "train", interrupting)
        capsys.readouterr()
        assert cli.main(arguments) == 130
    assert capsys.readouterr().err == (
        f"interrupted; go on with: l2l-evograd rotation --resume --out '{out}'\n"
    )
    assert len(content(out)["runs"]) == 1  # type: ignore[arg-type]
    assert cli.main(["rotation", "--resume", "--out", str(out)]) == 0
    timeless = [
        [{k: v for k, v in run.items() if "seconds" not in k} for run in found["runs"]]  # type: ignore[attr-defined]
        for found in (whole, content(out))
    ]
    assert timeless[0] == timeless[1]


def test_an_interrupt_before_the_first_file_says_so(tmp_path, capsys, monkeypatch):
    def interrupting() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rotation_command, "built_in_digits", interrupting)
    assert cli.main(["rotation", "--out", str(tmp_path / "run")]) == 130
    assert capsys.readouterr().err == "interrupted before anything was written\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "maml"], "expected method to be one of 'none', 'evograd'"),
        (["--methods", ","], "expected at least one method"),
        (["--data", "/nowhere"], "expected a folder with MNIST's files, got /nowhere"),
        (["--seeds", "0"], "expected seeds to be at least 1, got 0"),
        (["--candidates", "1"], "expected candidates to be at least 2"),
        (["--lr", "-1"], "expected lr to be positive and finite"),
        (["--meta-lr", "0"], "expected meta_lr to be positive and finite"),
        (["--iterations", "many"], "Invalid value for '--iterations'"),
        (["--resume"], "nothing to go on with"),
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
    assert f"error: {images} is cut or damaged" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_kind_is_not_gone_on_with(tmp_path, capsys):
    settings = tmp_path / "settings.json"
    settings.write_text('{"trials": 100, "seed": 0}')
    arguments = ["rotation", "--resume", "--out", str(tmp_path)]
    assert cli.main(arguments) == 2
    assert "the settings of a rotation run" in capsys.readouterr().err
    settings.write_text("{")
    assert cli.main(arguments) == 2
    assert "settings.json is no JSON" in capsys.readouterr().err
    settings.write_text("[]")
    assert cli.main(arguments) == 2
    assert "settings.json to hold an object" in capsys.readouterr().err


def test_the_summary_goes_over_the_seeds(tmp_path):
    def run(method: str, accuracy: float, angle: float | None) -> dict[str, object]:
        return {
            "method": method,
            "accuracy": accuracy,
            "accuracy_back": 0.5,
            "angle": angle,
            "seconds_per_iteration": 0.1,
        }

    settings = RotationSettings(methods=("none", "exact", "guided"))
    results = RotationResults(tmp_path, settings, {})
    results.runs += [run("exact", 0.6, 20), run("exact", 0.8, 30)]
    results.runs += [run("none", 0.3, None)]
    none, exact = results.summary()
    assert (none["seeds"], none["angle"], none["accuracy_sd"]) == (1, None, 0.0)
    assert exact["accuracy"] == pytest.approx(0.7)
    assert exact["accuracy_sd"] == pytest.approx(0.02**0.5)
    assert (exact["angle"], exact["angle_sd"]) == (25, pytest.approx(50**0.5))
