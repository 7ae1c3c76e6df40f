import pytest
from PIL import Image

from l2l_evograd import cli

TINY = [
    *("noisy-labels", "--image-size", "16", "--iterations", "2", "--device", "cpu"),
    *("--train-images", "100", "--test-images", "50", "--batch-size", "20"),
    *("--methods", "baseline,guided", "--seeds", "1"),
]


def test_a_run_leaves_its_files_and_goes_on_from_them(tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main([*TINY, "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {
        *("settings.json", "results.json", "accuracy.png", "samples.png"),
        *("settings.previous.json", "results.previous.json"),
        *("checkpoints", "logs"),
    }
    printed = capsys.readouterr().out
    assert "100 training images" in printed and "guided" in printed
    before = (out / "results.json").read_text()
    resume = ["noisy-labels", "--resume", "--out", str(out)]
    assert cli.main(resume) == 0
    assert (out / "results.json").read_text() == before
    capsys.readouterr()
    assert cli.main([*resume, "--noise", "flip"]) == 2
    assert "--noise 'flip2', got 'flip'" in capsys.readouterr().err
    assert cli.main([*TINY, "--out", str(out)]) == 2
    assert "already contains a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--noise-rate", "1.2"], "noise rate between 0 and 1, got 1.2"),
        (["--noise-rate", "-0.1"], "noise_rate to be at least 0 and finite, got -0.1"),
        (
            ["--noise", "swap"],
            "noise to be one of 'uniform', 'flip', 'flip2', got 'swap'",
        ),
        (["--meta-images", "105"], "a multiple of the 10 classes, got 105"),
        (["--meta-images", "2000"], "a meta set of 2000 takes 200 images of each"),
        (["--train-images", "5000"], "train on 1 to 1400 images"),
        (["--imbalance", "0.1"], "imbalance of at least 1"),
        (["--weighting", "hope"], "weighting to be one of 'samples', 'net'"),
        (["--methods", "frozen"], "weighting 'samples' has no net: expected other"),
        (["--methods", "magic"], "methods to be one of 'baseline'"),
        (["--network", "vgg"], "network to be one of 'small'"),
        (["--precision", "16"], "precision to be one of '32', 'bf16', got '16'"),
        (["--epochs", "1", "--iterations", "1"], "epochs or iterations, got both"),
        (["--data", "/nowhere"], "/nowhere is not a folder; expected cifar-10"),
        (["--resume"], "no run to resume"),
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
    assert "at least two classes, got 1" in line
    assert not (tmp_path / "run").exists()
