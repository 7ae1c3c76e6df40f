import subprocess
import sys

import pytest

import l2l_evograd
from l2l_evograd import cli


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
