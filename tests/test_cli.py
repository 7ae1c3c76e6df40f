import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import l2l_evograd
from l2l_evograd import cli
from l2l_evograd.experiments import environment


def test_the_version_and_the_environment_are_shown(capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cli.main(["--version"]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first == f"l2l-evograd {l2l_evograd.__version__}"
    shown = dict(line.split(" ", 1) for line in others)
    assert shown["torch"] == importlib.metadata.version("torch")
    assert shown["threads"].endswith("(OMP_NUM_THREADS is 3)")
    assert int(shown["cores"]) >= 1 and {"python", "platform", "cuda"} <= {*shown}


def test_a_library_that_is_not_installed_is_shown_as_such(capsys, monkeypatch):
    monkeypatch.setattr(environment, "_LIBRARIES", ("no-such-library",))
    assert cli.main(["--version"]) == 0
    assert "no-such-library not installed" in capsys.readouterr().out.splitlines()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("comp", "compare"),
        ("--vers", "--version"),
        ("rotation --conf", "--config"),
        ("compare --est", "--estimators"),
        ("noisy-labels --meta-l", "--meta-lr"),
    ],
)
def test_bash_completes_commands_and_options(words, found, tmp_path, capsys):
    assert cli.main(["--show-completion", "bash"]) == 0
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    code = (
        f"source {script}; COMP_WORDS=(l2l-evograd {words}); "
        f"COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _l2l_evograd; echo ${{COMPREPLY[*]}}"
    )
    line = ["bash", "--norc", "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [found]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_for_the_user(shell, tmp_path, monkeypatch, capsys):
    for name in ("ZSH", "ZSH_CUSTOM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.main(["--install-completion", shell]) == 0
    path = Path(capsys.readouterr().out.partition(":")[0])
    assert tmp_path in path.parents and "meta-lr" in path.read_text()


def test_completion_that_cannot_be_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    for line, message in (
        (["--install-completion", "tcsh"], "error: expected the shell to be one of '"),
        (["--show-completion", "powershell"], "error: expected the shell to be one"),
        (["--install-completion", "bash"], "error: cannot write "),
    ):
        assert cli.main(line) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert said.startswith(message)


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
        "import sys; from l2l_evograd import cli;"
        "[cli.main([command, '--help']) for command in ('', *cli.COMMANDS)];"
        "assert not {'learn2learn', 'pytorch_lightning', 'matplotlib'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_every_option_has_a_help_text():
    for command in cli.COMMANDS:
        app = cli.make_app(command)
        shown = {
            argument.name: argument.parameter.help or argument.field_info.help
            for argument in app[command].assemble_argument_collection(
                parse_docstring=True
            )
            if argument.show
        }
        assert len(shown) > 1 and all(shown.values()), command


def registered(monkeypatch, function: str) -> None:
    monkeypatch.setitem(cli.COMMANDS, "crossdomain", (f"failing:{function}", "Help."))


def test_a_missing_dependency_names_the_extra(capsys, monkeypatch):
    registered(monkeypatch, "missing_library")
    assert cli.main(["crossdomain"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "needs some_library" in line
    assert "pip install 'l2l-evograd[fewshot]'" in line


def test_a_missing_module_of_our_own_is_a_fault(monkeypatch):
    registered(monkeypatch, "missing_module")
    with pytest.raises(ModuleNotFoundError):
        cli.main(["crossdomain"])


def test_an_unknown_fault_keeps_its_traceback(monkeypatch):
    registered(monkeypatch, "fault")
    with pytest.raises(ValueError, match="not by us"):
        cli.main(["crossdomain"])


def test_an_input_error_is_one_line(capsys, monkeypatch):
    registered(monkeypatch, "bad_input")
    assert cli.main(["crossdomain"]) == 2
    assert capsys.readouterr().err == "error: expected this, got that\n"


def test_an_interrupt_is_one_line(capsys, monkeypatch):
    registered(monkeypatch, "interrupted")
    assert cli.main(["crossdomain"]) == 130
    assert capsys.readouterr().err == "interrupted; give the command again\n"
