import os

import pytest
import torch
from idx import write_digits

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.deterministic import check_workspace, deterministic
from l2l_evograd.experiments.rotation.settings import RotationSettings
from l2l_evograd.experiments.search.problem import make_problem
from l2l_evograd.experiments.search.settings import SearchSettings

VARIABLE = "CUBLAS_WORKSPACE_CONFIG"


def state() -> tuple[bool, bool, bool, str | None]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        os.environ.get(VARIABLE),
    )


def test_it_is_in_force_in_the_body_and_undone_after_it(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    before = state()
    with deterministic(False):
        assert state() == before
    with deterministic(True):
        assert state() == (True, False, False, ":4096:8")
        with pytest.raises(RuntimeError, match="deterministic"):
            # The largest value's place has no deterministic gradient.
            torch.nn.functional.max_unpool2d(
                torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1, dtype=torch.int64), 2
            )
    assert state() == before


def test_it_is_undone_after_an_error_and_as_it_was_set(monkeypatch):
    monkeypatch.setenv(VARIABLE, ":16:8")
    torch.set_deterministic_debug_mode("warn")
    try:
        before = state()
        with pytest.raises(ZeroDivisionError), deterministic(True):
            assert state()[:2] == (True, False)
            raise ZeroDivisionError
        assert state() == before
    finally:
        torch.set_deterministic_debug_mode("default")


def test_another_workspace_is_refused(monkeypatch):
    monkeypatch.setenv(VARIABLE, ":8:8")
    for check in (check_workspace, RotationSettings(deterministic=True).check_machine):
        with pytest.raises(
            InputError, match="CUBLAS_WORKSPACE_CONFIG to be :4096:8 or"
        ):
            check()
    RotationSettings().check_machine()


def test_it_is_stored_and_is_in_force_in_the_trainings_of_a_search(tmp_path):
    write_digits(tmp_path / "mnist", "t10k", 60)
    given = {"data": str(tmp_path / "mnist"), "batch_size": 8}
    settings = SearchSettings(
        experiment="rotation", fixed=given, fidelity="1..2", deterministic=True
    )
    assert settings.to_dict()["deterministic"] is True
    problem = make_problem(settings, tmp_path / "trainings")
    assert problem.settings({}, 2, 0).deterministic
    seen = []
    handle = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda *_: seen.append(torch.are_deterministic_algorithms_enabled())
    )
    try:
        problem({}, 2, 0)
    finally:
        handle.remove()
    assert seen and all(seen)
    assert not torch.are_deterministic_algorithms_enabled()
