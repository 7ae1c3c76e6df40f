import json
import sys
import warnings
from typing import Annotated, Any

import pytest
from idx import write_digits
from rich.console import Console

from l2l_evograd import cli, interrupts
from l2l_evograd.checks import InputError
from l2l_evograd.experiments.options import NotAnOption
from l2l_evograd.experiments.output import OutcomeError, printing


@printing("some")
def some(
    fault: str = "", *, console: Annotated[Console | None, NotAnOption] = None
) -> list[dict[str, Any]]:
    (console or Console()).print("a table")
    print("a library")
    warnings.warn("a warning", stacklevel=1)
    if fault == "input":
        raise InputError("wrong")
    if fault == "outcome":
        raise OutcomeError("not the same", [{"a": 2}])
    return [{"a": 1.5, "b": None}]


@pytest.mark.filterwarnings("ignore:a warning")
@pytest.mark.parametrize("quiet", [False, True])
def test_a_document_is_all_that_is_on_the_output(quiet, capsys):
    assert some(json=True, quiet=quiet) == [{"a": 1.5, "b": None}]
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["rows"] == [{"a": 1.5, "b": None}]
    assert found["command"] == "some" and found["out"] is None
    assert ("a table" in said.err and "a library" in said.err) != quiet


@pytest.mark.filterwarnings("ignore:a warning")
def test_quiet_prints_nothing(capsys):
    some(quiet=True)
    assert tuple(capsys.readouterr()) == ("", "")


@pytest.mark.filterwarnings("ignore:a warning")
def test_an_error_has_no_document_but_an_outcome_has(capsys):
    with pytest.raises(InputError):
        some("input", json=True)
    assert capsys.readouterr().out == ""
    with pytest.raises(OutcomeError, match="not the same"):
        some("outcome", json=True)
    assert json.loads(capsys.readouterr().out)["rows"] == [{"a": 2}]


@pytest.mark.filterwarnings("ignore:a warning")
def test_a_process_that_follows_prints_no_document(monkeypatch, capsys):
    monkeypatch.setattr(interrupts, "follows", lambda: True)
    some(json=True)
    assert capsys.readouterr().out == ""


@pytest.mark.filterwarnings("ignore:a warning")
def test_a_closed_error_stream_is_no_reason_to_print_elsewhere(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(warnings, "warn", lambda *_, **__: None)
    some(json=True, quiet=True)
    assert json.loads(capsys.readouterr().out)["command"] == "some"


def test_numbers_that_json_does_not_have_are_an_error():
    @printing("some")
    def odd(console: Console | None = None) -> list[dict[str, Any]]:
        return [{"a": float("nan")}]

    with pytest.raises(ValueError, match="not JSON compliant"):
        odd(json=True)


def test_a_run_writes_its_files_and_one_document(tmp_path, capsys):
    write_digits(tmp_path / "mnist", "t10k", 60)
    out = tmp_path / "run"
    line = ["rotation", "--data", str(tmp_path / "mnist"), "--iterations", "2"]
    line += ["--batch-size", "8", "--seeds", "1", "--methods", "none", "--out"]
    assert cli.main([*line, str(out), "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["out"] == str(out) and "Rotation: " in said.err
    written = json.loads((out / "results.json").read_text())
    assert found["rows"] == written["summary"]
    quiet = tmp_path / "quiet"
    assert cli.main([*line, str(quiet), "--quiet"]) == 0
    assert tuple(capsys.readouterr()) == ("", "")
    assert (quiet / "results.json").exists()
    assert cli.main([*line, str(quiet), "--quiet"]) == 2
    assert "already contains a run" in capsys.readouterr().err
    assert cli.main(["rerun", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["out"] == str(tmp_path / "run-rerun")
    assert found["rows"] == [
        {"seed": 0, "method": "none", "same": True, "difference": None}
    ]


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_both_options(command):
    app = cli.make_app(command)
    names = {
        name
        for argument in app[command].assemble_argument_collection()
        for name in argument.names
    }
    assert {"--quiet", "--json"} <= names
