import json

import pytest
from photographs import make_domain
from written import edit

from l2l_evograd import cli
from l2l_evograd.experiments.sealed import remove

TINY = [
    *("crossdomain", "--image-size", "16", "--ways", "2", "--shots", "1"),
    *("--queries", "2", "--iterations", "2", "--save-every", "1", "--episodes", "4"),
    *("--pretrain-epochs", "0", "--methods", "none,lft-guided", "--device", "cpu"),
    *("--seeds", "1", "--unseen", "sketch"),
]


DOMAINS = ("birds", "cars", "cats", "dogs")


@pytest.fixture
def small(tmp_path) -> list[str]:
    """A command line on four domains of a few photographs, which are quickly read."""
    for name in DOMAINS:
        make_domain(tmp_path / "data", name)
    data = ["--data", str(tmp_path / "data"), "--unseen", "dogs", "--queries", "1"]
    return [*TINY, *data]


def test_a_run_leaves_its_files_and_goes_on_from_them(tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main([*TINY, "--out", str(out)]) == 0
    names = {path.name for path in out.iterdir()}
    assert names == {
        *("settings.json", "results.json", "accuracy.png", "episodes.png"),
        *("settings.previous.json", "results.previous.json"),
        *("strengths.png", "features.png", "checkpoints", "logs"),
    }
    said = capsys.readouterr().out
    verdict, moved = said.strip().splitlines()[-2:]
    assert verdict.startswith("lft-guided against none: ")
    assert "nothing can be said about other seeds" in verdict
    assert moved.startswith("λ of lft-guided: mean scale γ 0.300 → ")
    before = (out / "results.json").read_text()
    assert cli.main(["crossdomain", "--resume", "--out", str(out)]) == 0
    assert (out / "results.json").read_text() == before
    assert cli.main(["crossdomain", "--resume", "--ways", "3", "--out", str(out)]) == 2
    assert "--ways 2, got 3" in capsys.readouterr().err
    assert cli.main([*TINY, "--out", str(out)]) == 2
    assert "already contains a run" in capsys.readouterr().err


def test_several_unseen_domains_are_runs_of_their_own(small, tmp_path, capsys):
    out = tmp_path / "run"
    names = ("dogs", "birds", "cats")  # "birds" is the base of the others
    several = [*small, "--unseen", ",".join(names), "--pretrain-epochs", "1"]
    assert cli.main([*several, "--seed", "1", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.count("pre-training ends with") == 3
    assert said.count("pre-training on birds") == 2
    assert said.count("λ of lft-guided: ") == 3
    title, verdict = said.strip().splitlines()[-2:]
    assert title == "Mean over 3 unseen domains:"
    assert verdict.startswith("lft-guided against none: ")
    for name in names:
        settings = json.loads((out / name / "settings.json").read_text())
        assert (settings["unseen"], settings["seed"]) == (name, 1)
    first, other, third = (
        (out / name / "checkpoints" / "1-pretrain.ckpt").read_bytes() for name in names
    )
    assert first == third != other
    assert cli.main([*several, "--resume", "--seed", "1", "--out", str(out)]) == 0
    assert cli.main([*several, "--out", str(out)]) == 2
    assert "already contains a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--unseen", "dogs,cats,dogs"], "each unseen domain once, got dogs, cats"),
        (["--unseen", "dogs,cats", "--resume"], "there is no run to resume: no fold"),
    ],
)
def test_several_unseen_domains_that_make_no_sense_are_refused(
    arguments, message, small, tmp_path, capsys
):
    assert cli.main([*small, *arguments, "--out", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not (tmp_path / "run").exists()


def test_of_several_unseen_domains_the_last_is_checked_before_the_first_runs(
    tmp_path, capsys
):
    out = tmp_path / "run"
    assert cli.main([*TINY, "--unseen", "sketch,photo", "--out", str(out)]) == 2
    assert "unseen domain to be one of 'print'" in capsys.readouterr().err
    assert not out.exists()


def test_a_checkpoint_of_another_model_is_one_line(small, tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main([*small, "--out", str(out)]) == 0
    edit(out / "settings.json", head="gnn")
    remove(out / "results.json")
    capsys.readouterr()
    assert cli.main(["crossdomain", "--resume", "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "head is 'protonet' in the checkpoint, 'gnn' in this run" in line


@pytest.mark.parametrize("name", ["start_scale", "start_shift"])
def test_a_checkpoint_of_other_start_strengths_is_one_line(
    name, small, tmp_path, capsys
):
    out = tmp_path / "run"
    assert cli.main([*small, "--out", str(out)]) == 0
    option = f"--{name.replace('_', '-')}"
    assert cli.main(["crossdomain", "--resume", option, "1", "--out", str(out)]) == 2
    assert f"expected {option} 0." in capsys.readouterr().err
    edit(out / "settings.json", **{name: 1.5})
    remove(out / "results.json")
    assert cli.main(["crossdomain", "--resume", "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert name in line and "1.5 in this run" in line


def test_workers_and_cache_may_change_when_a_run_goes_on(small, tmp_path):
    out = tmp_path / "run"
    assert cli.main([*small, "--out", str(out)]) == 0
    again = ["crossdomain", "--resume", "--workers", "1", "--cache", "0.5"]
    assert cli.main([*again, "--out", str(out)]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--unseen", "photo"], "unseen domain to be one of 'print'"),
        (["--base", "photo"], "base domain to be one of 'outline'"),
        (["--methods", "maml"], "methods to be one of 'none', 'ft'"),
        (["--head", "linear"], "head to be one of 'protonet'"),
        (["--backbone", "vgg"], "backbone to be one of 'cnn4'"),
        (["--ways", "500"], "too few for 500 ways"),
        (["--shots", "500"], "too few for 500 shots"),
        (["--ways", "many"], "Invalid value for --ways"),
        (["--colour", "red"], "Unknown option: --colour"),
        (["--data", "/nowhere"], "/nowhere"),
        (["--preset", "paper"], "preset to be one of 'paper-1shot'"),
        (["--preset", "paper-5shot"], "for photographs: expected --data"),
        (["--augment"], "built-in glyphs are not augmented"),
        (["--precision", "8"], "precision to be one of '32', 'bf16', 'fp16', got '8'"),
        (["--precision", "fp16"], "lft-exact overflow in fp16"),
        (["--nodes", "2"], "torchrun to start the processes of 2 nodes"),
        (["--workers", "-1"], "workers to be a whole number of at least 0"),
        (["--cache", "0"], "cache to be positive"),
        (
            ["--pretrain-classifier", "svm"],
            "pretrain_classifier to be one of 'linear', 'cosine'",
        ),
        (["--resume"], "no run to resume"),
        (["--resume", "--overwrite"], "--resume or --overwrite, got both"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: list[str], message: str, tmp_path, capsys
):
    out = tmp_path / "run"
    assert cli.main(["crossdomain", "--out", str(out), *arguments]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("error: ") and message in line
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_one_line(tmp_path, capsys):
    (tmp_path / "run").write_text("")
    assert cli.main(["crossdomain", "--out", str(tmp_path / "run")]) == 2
    assert "to be a folder" in capsys.readouterr().err
