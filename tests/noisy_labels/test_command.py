from pathlib import Path

import pytest
from PIL import Image

from l2l_evograd import cli
from l2l_evograd.noisy_labels import command as command_module
from l2l_evograd.noisy_labels.settings import NoisyLabelSettings

TINY = [
    *("noisy-labels", "--image-size", "16", "--iterations", "2", "--device", "cpu"),
    *("--train-images", "100", "--test-images", "50", "--batch-size", "20"),
    *("--methods", "baseline,guided"),
]


def test_the_defaults_of_the_options_are_those_of_the_settings(monkeypatch):
    seen: dict[str, object] = {}
    monkeypatch.setattr(
        command_module, "noisy_labels", lambda options, **_: seen.update(options)
    )
    assert cli.main(["noisy-labels"]) == 0
    assert NoisyLabelSettings(**seen) == NoisyLabelSettings()  # type: ignore[arg-type]


def test_a_run_leaves_its_files_and_goes_on_from_them(tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main([*TINY, "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {
        *("settings.json", "results.json", "accuracy.png", "weights.png"),
        *("samples.png", "checkpoints", "logs"),
    }
    printed = capsys.readouterr().out
    assert "100 training images" in printed and "guided" in printed
    before = (out / "results.json").read_text()
    resume = ["noisy-labels", "--resume", "--out", str(out)]
    assert cli.main(resume) == 0
    assert (out / "results.json").read_text() == before
    capsys.readouterr()
    assert cli.main([*resume, "--noise", "flip"]) == 2
    assert "--noise is 'flip2' there, 'flip' here" in capsys.readouterr().err
    assert cli.main([*TINY, "--out", str(out)]) == 2
    assert "holds a run already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--noise-rate", "1.2"], "noise rate between 0 and 1, got 1.2"),
        (["--noise-rate", "-0.1"], "noise rate between 0 and 1, got -0.1"),
        (["--noise", "swap"], "unknown noise 'swap'; choose from uniform, flip"),
        (["--meta-images", "105"], "a multiple of the 10 classes, got 105"),
        (["--meta-images", "2000"], "a meta set of 2000 takes 200 images of each"),
        (["--train-images", "5000"], "train on 1 to 1400 images"),
        (["--imbalance", "0.1"], "imbalance of at least 1"),
        (["--methods", "magic"], "unknown method 'magic'; choose from baseline"),
        (["--network", "vgg"], "unknown network 'vgg'"),
        (["--precision", "16"], "unknown precision '16'; choose from 32, bf16"),
        (["--epochs", "1", "--iterations", "1"], "epochs or iterations, got both"),
        (["--data", "/nowhere"], "/nowhere is no folder; expected cifar-10"),
        (["--resume"], "nothing to go on with"),
        (["--resume", "--overwrite"], "--resume or --overwrite, got both"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: list[str], message: str, tmp_path, capsys
):
    out = tmp_path / "run"
    assert cli.main(["noisy-labels", "--out", str(out), *arguments]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("error: ") and message in line
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_data_of_the_wrong_layout_are_one_line(tmp_path, capsys):
    for part in ("train", "test"):
        (tmp_path / "data" / part / "only").mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "data" / part / "only" / "0.png")
    arguments = ["noisy-labels", "--data", str(tmp_path / "data")]
    assert cli.main([*arguments, "--out", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "at least two classes to tell apart, got 1" in line
    assert not (tmp_path / "run").exists()


def interrupting(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupt_says_how_to_go_on(tmp_path: Path, capsys, monkeypatch):
    out = tmp_path / "a run"
    out.mkdir()
    monkeypatch.setattr(command_module, "read_source", interrupting)
    arguments = ["noisy-labels", "--out", str(out)]
    assert cli.main(arguments) == 130
    assert "interrupted before anything was written" in capsys.readouterr().err
    (out / "settings.json").write_text("{}")
    assert cli.main([*arguments, "--overwrite"]) == 130
    assert capsys.readouterr().err == (
        f"interrupted; go on with: l2l-evograd noisy-labels --resume --out '{out}'\n"
    )
