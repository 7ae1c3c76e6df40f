import pytest
from few_settings import Settings

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.command import interruptible, settings_to_run
from l2l_evograd.experiments.folder import make_folder


def settings(out, given=None, resume=False, overwrite=False):
    return settings_to_run(
        Settings, given or {}, out=out, resume=resume, overwrite=overwrite
    )


def test_a_new_run_has_the_settings_asked_for(tmp_path):
    assert settings(tmp_path, {"ways": 3}) == Settings(ways=3)


def test_a_run_that_goes_on_has_its_own(tmp_path):
    make_folder(tmp_path, Settings.command, Settings(ways=3).to_dict())
    assert settings(tmp_path, resume=True) == Settings(ways=3)
    with pytest.raises(InputError, match="expected --ways 3, got 2; leave"):
        settings(tmp_path, {"ways": 2, "seeds": 1}, resume=True)


def test_a_setting_that_may_change_does_when_a_run_goes_on(tmp_path):
    make_folder(tmp_path, Settings.command, Settings(ways=3).to_dict())
    found = settings(tmp_path, {"ways": 3, "workers": 2}, resume=True)
    assert found == Settings(ways=3, workers=2)


def test_the_settings_of_another_command_are_refused(tmp_path):
    make_folder(tmp_path, "illustrate", {"trials": 3, "seed": 0})
    with pytest.raises(InputError, match="to be of some, got settings of illustrate"):
        settings(tmp_path, resume=True)


def test_a_run_is_gone_on_with_or_replaced_but_not_both(tmp_path):
    with pytest.raises(InputError, match="--resume or --overwrite, got both"):
        settings(tmp_path, resume=True, overwrite=True)


def test_an_interrupt_says_how_to_go_on(tmp_path):
    out = tmp_path / "a run"
    with pytest.raises(KeyboardInterrupt, match="^interrupted before anything was w"):
        with interruptible(out, "some"):
            raise KeyboardInterrupt
    make_folder(out, "some", {})
    text = f"interrupted; resume with: l2l-evograd some --resume --out '{out}'"
    with pytest.raises(KeyboardInterrupt) as caught, interruptible(out, "some"):
        raise KeyboardInterrupt
    assert str(caught.value) == text
