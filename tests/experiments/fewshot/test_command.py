import json

import pytest
from small_omniglot import write_archives

from l2l_evograd import cli

TINY = [
    *("fewshot", "--methods", "fomaml,reptile", "--seeds", "1", "--device", "cpu"),
    *("--gradients", "1", "--meta-batch", "2", "--steps", "2", "--test-steps", "2"),
    *("--tasks", "2", "--validation-tasks", "1", "--hidden", "4"),
    *("--queries", "3", "--test-queries", "2", "--train-shots", "3"),
]


def test_a_run_leaves_its_files_and_goes_on_from_them(tmp_path, capsys):
    write_archives(tmp_path, each=8)
    out = tmp_path / "run"
    tiny = [*TINY, "--ways", "2", "--omniglot", str(tmp_path), "--out", str(out)]
    # Large batches, so that the budget is spent in few of them.
    tiny += ["--shots", "3", "--queries", "5", "--reptile-steps", "2"]
    tiny += ["--train-shots", "8", "--batch-size", "16"]
    assert cli.main(tiny) == 0
    assert {path.name for path in out.iterdir()} == {
        *("settings.json", "results.json", "adaptation.png", "training.png"),
        *("settings.previous.json", "results.previous.json"),
        *("checkpoints", "logs"),
    }
    printed = capsys.readouterr().out
    assert "2-way 3-shot; 32 classes for meta-training" in printed
    assert "reptile against fomaml" in printed
    before = json.loads((out / "results.json").read_text())
    resume = ["fewshot", "--resume", "--out", str(out)]
    assert cli.main(resume) == 0
    assert json.loads((out / "results.json").read_text()) == before
    assert cli.main([*resume, "--seeds", "2"]) == 0
    after = json.loads((out / "results.json").read_text())
    assert after["runs"][:2] == before["runs"] and len(after["runs"]) == 4
    capsys.readouterr()
    assert cli.main([*resume, "--shots", "2"]) == 2
    assert "--shots 3, got 2" in capsys.readouterr().err
    assert cli.main(tiny) == 2
    assert "replace it (--overwrite)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ways", "12"], "has 11 classes, too few for 12 ways: lower ways to 11"),
        (["--ways", "1"], "ways to be a whole number of at least 2, got 1"),
        (
            ["--shots", "15", "--test-queries", "6"],
            "too few for 15 shots and 6 queries",
        ),
        (["--methods", "magic"], "methods to be one of 'maml', 'fomaml'"),
        (["--omniglot", "nowhere"], "small2.zip are missing"),
        (["--data", "nowhere"], "novel.json are missing"),
        (["--data", "a", "--omniglot", "b"], "expected omniglot or data, got both"),
        (["--seconds", "3"], "expected gradients or seconds, got both: 1 and 3"),
        (["--reptile-steps", "90"], "a meta-iteration of reptile takes 1800 gradients"),
        (["--batch-size", "16"], "batch_size of at most 15, the images of a task"),
        (["--warp", "magic"], "warp to be one of 'scale', 'conv1x1'"),
        (["--init", "magic"], "init to be one of 'maml', 'fomaml'"),
        (["--image-size", "8"], "image_size to be a whole number of at least 16"),
        (["--lr", "0"], "lr to be positive and finite"),
        (["--device", "abacus"], "unknown device 'abacus'"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    arguments, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*TINY, "--out", "run", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not (tmp_path / "run").exists()
