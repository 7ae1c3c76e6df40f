import json
import subprocess
import sys
from pathlib import Path

import pytest

import l2l_evograd
from l2l_evograd import cli, commands
from l2l_evograd.fewshot import command as command_module

TINY = [
    *("crossdomain", "--image-size", "16", "--ways", "2", "--shots", "1"),
    *("--queries", "2", "--iterations", "2", "--save-every", "1", "--episodes", "4"),
    *("--pretrain-epochs", "0", "--methods", "none,lft-guided", "--device", "cpu"),
]


def test_the_version_is_shown(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"l2l-evograd {l2l_evograd.__version__}\n"


def test_help_names_the_command_and_its_options(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert cli.main(["--help"]) == 0
    assert "crossdomain" in capsys.readouterr().out
    assert cli.main(["crossdomain", "--help"]) == 0
    assert "--meta-lr" in capsys.readouterr().out


def test_without_a_command_the_help_is_shown(capsys):
    assert cli.main([]) == 2
    assert "crossdomain" in capsys.readouterr().out


def test_help_is_quick_because_nothing_heavy_is_imported():
    code = (
        "import sys; from l2l_evograd import cli; cli.main(['crossdomain', '--help']);"
        "assert not {'learn2learn', 'pytorch_lightning', 'matplotlib'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_defaults_of_the_options_are_those_of_the_settings(monkeypatch):
    from l2l_evograd.fewshot.settings import CrossDomainSettings

    seen = {}
    monkeypatch.setattr(
        command_module, "crossdomain", lambda options, **_: seen.update(options)
    )
    assert cli.main(["crossdomain"]) == 0
    assert seen.pop("preset") is None
    assert CrossDomainSettings(**seen) == CrossDomainSettings()


def test_a_run_leaves_its_files_and_goes_on_from_them(tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main([*TINY, "--out", str(out)]) == 0
    names = {path.name for path in out.iterdir()}
    assert names == {
        *("settings.json", "results.json", "accuracy.png", "episodes.png"),
        *("strengths.png", "features.png", "checkpoints", "logs"),
    }
    assert "lft-guided" in capsys.readouterr().out
    before = (out / "results.json").read_text()
    assert cli.main(["crossdomain", "--resume", "--out", str(out)]) == 0
    assert (out / "results.json").read_text() == before
    assert cli.main(["crossdomain", "--resume", "--ways", "3", "--out", str(out)]) == 2
    assert "--ways is 2 there, 3 here" in capsys.readouterr().err
    assert cli.main([*TINY, "--out", str(out)]) == 2
    assert "holds a run already" in capsys.readouterr().err


def test_several_unseen_domains_are_runs_of_their_own(tmp_path, capsys):
    out = tmp_path / "run"
    names = ("sketch", "print", "outline")  # "print" is the base of the others
    several = [*TINY, "--unseen", ",".join(names), "--pretrain-epochs", "1"]
    assert cli.main([*several, "--seed", "1", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.count("pre-training ends with") == 3
    assert said.count("pre-training on print") == 2
    for name in names:
        settings = json.loads((out / name / "settings.json").read_text())
        assert (settings["unseen"], settings["seed"]) == (name, 1)
    first, other, third = (
        (out / name / "checkpoints" / "1-pretrain.ckpt").read_bytes() for name in names
    )
    assert first == third != other
    assert cli.main([*several, "--resume", "--seed", "1", "--out", str(out)]) == 0
    assert cli.main([*several, "--out", str(out)]) == 2
    assert "holds a run already" in capsys.readouterr().err


def test_of_several_unseen_domains_the_last_is_checked_before_the_first_runs(
    tmp_path, capsys
):
    out = tmp_path / "run"
    assert cli.main([*TINY, "--unseen", "sketch,photo", "--out", str(out)]) == 2
    assert "unknown unseen domain 'photo'" in capsys.readouterr().err
    assert not out.exists()


def test_a_checkpoint_of_another_model_is_one_line(tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main([*TINY, "--out", str(out)]) == 0
    settings = json.loads((out / "settings.json").read_text())
    settings["head"] = "gnn"
    (out / "settings.json").write_text(json.dumps(settings))
    (out / "results.json").unlink()
    capsys.readouterr()
    assert cli.main(["crossdomain", "--resume", "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "head is 'protonet' there, 'gnn' here" in line


def test_workers_and_cache_may_change_when_a_run_goes_on(tmp_path):
    out = tmp_path / "run"
    assert cli.main([*TINY, "--out", str(out)]) == 0
    again = ["crossdomain", "--resume", "--workers", "1", "--cache", "0.5"]
    assert cli.main([*again, "--out", str(out)]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--unseen", "photo"], "unknown unseen domain 'photo'; choose from print,"),
        (["--base", "photo"], "unknown base domain 'photo'; choose from inverse,"),
        (["--methods", "maml"], "unknown method 'maml'; choose from none, ft,"),
        (["--head", "linear"], "unknown head 'linear'; choose from protonet,"),
        (["--backbone", "vgg"], "unknown backbone 'vgg'; choose from cnn4, conv4, "),
        (["--ways", "500"], "too few for 500 ways"),
        (["--shots", "500"], "too few for 500 shots"),
        (["--ways", "many"], "Invalid value for '--ways'"),
        (["--colour", "red"], "No such option"),
        (["--data", "/nowhere"], "/nowhere"),
        (["--preset", "paper"], "unknown preset 'paper'; choose from paper-1shot,"),
        (["--preset", "paper-5shot"], "for photographs: expected --data"),
        (["--augment"], "built-in glyphs are not augmented"),
        (["--precision", "8"], "unknown precision '8'; choose from 32, bf16, fp16"),
        (["--precision", "fp16"], "lft-exact overflow in fp16"),
        (["--nodes", "2"], "2 nodes to be started by torchrun"),
        (["--workers", "-1"], "workers to be at least 0"),
        (["--cache", "0"], "cache to be positive"),
        (["--pretrain-classifier", "svm"], "unknown pretrain_classifier 'svm'"),
        (["--resume"], "nothing to go on with"),
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


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, capsys, monkeypatch):
    def refusing(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(Path, "mkdir", refusing)
    assert cli.main([*TINY, "--out", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "cannot write to" in line and "No such file or directory" in line


def test_only_the_notice_of_gym_is_held_back(capsys):
    with commands.application.without_gym_notice():
        print("Gym has been unmaintained", file=sys.stderr)
        print("something else", file=sys.stderr)
    assert capsys.readouterr().err == "something else\n"


def interrupting(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupt_says_how_to_go_on(tmp_path: Path, capsys, monkeypatch):
    (tmp_path / "a run").mkdir()
    monkeypatch.setattr(command_module, "prepare", interrupting)
    out = tmp_path / "a run"
    arguments = ["crossdomain", "--out", str(out)]
    assert cli.main(arguments) == 130
    assert "interrupted before anything was written" in capsys.readouterr().err
    (out / "settings.json").write_text("{}")
    assert cli.main([*arguments, "--overwrite"]) == 130
    assert capsys.readouterr().err == (
        f"interrupted; go on with: l2l-evograd crossdomain --resume --out '{out}'\n"
    )


def test_a_missing_dependency_names_the_extra(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "l2l_evograd.fewshot.command", None)
    monkeypatch.setattr(cli, "_EXTRA_MODULES", {"l2l_evograd"})
    assert cli.main(["crossdomain"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "pip install 'l2l-evograd[fewshot]'" in line


def test_a_module_of_our_own_that_is_missing_is_no_bad_input(monkeypatch):
    monkeypatch.setitem(sys.modules, "l2l_evograd.fewshot.command", None)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["crossdomain"])


def test_an_error_inside_a_library_keeps_its_traceback(monkeypatch):
    def broken(*_: object, **__: object) -> None:
        int("not by us")

    monkeypatch.setattr(command_module, "crossdomain", broken)
    with pytest.raises(ValueError, match="not by us"):
        cli.main(["crossdomain"])
