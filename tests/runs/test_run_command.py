from dataclasses import dataclass
from typing import ClassVar

import pytest

from l2l_evograd.runs.command import how_to_go_on, interruptible, settings_to_run
from l2l_evograd.runs.folder import make_folder
from l2l_evograd.runs.results import RunResults, deviation
from l2l_evograd.runs.settings import RunSettings


@dataclass(frozen=True)
class Settings(RunSettings):
    """Fields in an order of their own."""

    command: ClassVar[str] = "some"

    ways: int = 2
    methods: tuple[str, ...] = ("a", "b")
    seed: int = 0
    seeds: int = 1


def settings(out, options=None, given=None, resume=False, overwrite=False):
    return settings_to_run(
        Settings,
        options or {},
        given or {},
        out=out,
        pictures=("own.png",),
        resume=resume,
        overwrite=overwrite,
    )


def test_a_new_run_has_the_settings_asked_for(tmp_path):
    assert settings(tmp_path, {"ways": 3}) == Settings(3)
    assert list(Settings(3).to_dict()) == ["ways", "methods", "seed", "seeds"]


def test_a_run_that_goes_on_has_its_own(tmp_path):
    make_folder(tmp_path, Settings(3).to_dict(), ())
    assert settings(tmp_path, {"ways": 2}, resume=True) == Settings(3)
    with pytest.raises(ValueError, match="but --ways is 3 there, 2 here; leave"):
        settings(tmp_path, given={"ways": 2, "seeds": 1}, resume=True)


def test_the_settings_of_another_command_are_refused(tmp_path):
    make_folder(tmp_path, {"trials": 3, "seed": 0}, ())
    with pytest.raises(ValueError, match="of a some run .* methods, seeds, tria"):
        settings(tmp_path, resume=True)


def test_a_run_is_gone_on_with_or_replaced_but_not_both(tmp_path):
    with pytest.raises(ValueError, match="--resume or --overwrite, got both"):
        settings(tmp_path, resume=True, overwrite=True)


def test_an_interrupt_says_how_to_go_on(tmp_path):
    out = tmp_path / "a run"
    assert how_to_go_on(out, "some") == "interrupted before anything was written"
    make_folder(out, {}, ())
    text = f"interrupted; go on with: l2l-evograd some --resume --out '{out}'"
    with pytest.raises(KeyboardInterrupt) as caught, interruptible(out, "some"):
        raise KeyboardInterrupt
    assert str(caught.value) == how_to_go_on(out, "some") == text


def test_results_know_what_is_there_and_ask_for_a_summary(tmp_path):
    results = RunResults(tmp_path, Settings(), {})
    results.runs = [{"seed": 0, "method": "a"}, {"seed": 1, "method": "a"}]
    assert results.has(1, "a") and not results.has(1, "b")
    assert [run["seed"] for run in results.of("a")] == [0, 1]
    with pytest.raises(NotImplementedError, match="RunResults lacks the method"):
        results.write()


def test_one_value_has_no_deviation():
    assert deviation([3.0]) == deviation([]) == 0.0
    assert deviation([1.0, 3.0]) == pytest.approx(2**0.5)
