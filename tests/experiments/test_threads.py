import os

import pytest
import torch

from l2l_evograd.experiments import threads
from l2l_evograd.experiments.threads import shared_cores, tell_if_busy, threads_of_each


@pytest.fixture
def four(monkeypatch):
    """Four cores, and four threads; the user has chosen nothing."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "cores", lambda: 4)
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(1)


def test_processes_share_the_cores(four):
    assert [threads_of_each(n) for n in (1, 2, 3, 4, 9)] == [4, 2, 1, 1, 1]
    with shared_cores(2):
        assert torch.get_num_threads() == 2
        assert threads_of_each(2) == 2
    assert torch.get_num_threads() == 4


def test_what_the_user_has_chosen_stays(four, monkeypatch):
    torch.set_num_threads(1)
    assert threads_of_each(2) == 1
    torch.set_num_threads(3)
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    with shared_cores(4):
        assert torch.get_num_threads() == 3


def test_one_process_does_not_touch_the_number(four):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "set_num_threads", lambda n: pytest.fail("set"))
        with shared_cores(1):
            pass


def test_a_busy_machine_is_told_once_and_only_if_it_matters(four, monkeypatch, capsys):
    monkeypatch.setattr(os, "getloadavg", lambda: (3.9, 0.0, 0.0), raising=False)
    tell_if_busy()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(os, "getloadavg", lambda: (5.0, 0.0, 0.0), raising=False)
    tell_if_busy()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: this machine is busy (load 5.0, 4 cores); ")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    tell_if_busy()
    assert capsys.readouterr().err == ""
