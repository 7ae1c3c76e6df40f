import os
import re
import sys
import time
from pathlib import Path

import pytest

from l2l_evograd import interrupts
from l2l_evograd.checks import InputError
from l2l_evograd.experiments.processes import (
    ProcessDiedError,
    check_others,
    check_ranks,
    console_of,
    leads,
    start_others,
)
from l2l_evograd.interrupts import run


def test_a_scheduler_that_numbers_independent_runs_does_not_silence_them(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert leads(1) and not leads(2)
    assert console_of(2, None).quiet and not console_of(1, None).quiet
    monkeypatch.delenv("RANK")
    assert leads(2)


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
@pytest.mark.parametrize("value", ["abc", "", "1.5"])
def test_processes_that_are_numbered_otherwise_are_refused(name, value, monkeypatch):
    check_ranks()
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"expected {name} in the environment to be"):
        check_ranks()


SLEEPING = f"import time; time.sleep(100)  # {os.getpid()}"


@pytest.fixture
def environment(monkeypatch):
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())


def started(monkeypatch, script: str) -> None:
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-c", script])
    start_others(3)


def test_other_processes_run_the_same_command_and_are_ended(monkeypatch, environment):
    def work():
        started(monkeypatch, SLEEPING)
        start_others(3)  # they run already
        return 2, ""

    assert run(work, own=False) == 2
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert lines and not any(SLEEPING.encode() in line for line in lines)
    assert os.environ["LOCAL_RANK"] == "0" and os.environ["WORLD_SIZE"] == "3"


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        (
            "import os; os.kill(os.getpid(), 9)",
            2,
            r"^error: process \d of 3 has died \(s",
        ),
        ("raise SystemExit(7)", 2, r"^error: process \d of 3 has died \(exit code 7\)"),
        ("raise SystemExit(2)", 2, "^$"),  # it has said why
        ("raise SystemExit(143)", 143, "^interrupted; give"),
        ("import os; os.kill(os.getpid(), 15)", 143, "^interrupted; give"),
    ],
)
def test_the_end_of_another_process_ends_the_command(
    script, code, said, monkeypatch, environment, capsys
):
    def work():
        started(monkeypatch, script)
        for _ in range(3000):
            time.sleep(0.01)
        return 0, ""

    assert run(work, own=False) == code
    assert re.search(said, capsys.readouterr().err)


def test_an_error_that_another_process_has_caused_is_told_as_such(
    monkeypatch, environment
):
    def work():
        started(monkeypatch, "raise SystemExit(7)")
        with pytest.raises((ProcessDiedError, KeyboardInterrupt)):
            for _ in range(500):
                check_others()
        return 0, ""

    assert run(work, own=False) == 2


@pytest.mark.parametrize(("rank", "follows"), [("0", False), ("1", True), ("x", False)])
def test_a_process_follows_if_a_launcher_has_numbered_it_above_0(
    rank, follows, monkeypatch
):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", rank)
    assert interrupts.follows() is follows
