import pytest

from l2l_evograd.fewshot.presets import PRESETS, with_preset
from l2l_evograd.fewshot.settings import CrossDomainSettings

OPTIONS = {**CrossDomainSettings().to_dict(), "data": "somewhere", "preset": None}


def test_without_a_preset_nothing_changes():
    options, given = with_preset(OPTIONS, {"ways": 3})
    assert options == {k: v for k, v in OPTIONS.items() if k != "preset"}
    assert given == {"ways": 3}


@pytest.mark.parametrize(("name", "shots"), [("paper-1shot", 1), ("paper-5shot", 5)])
def test_a_preset_is_made_of_the_published_settings(name: str, shots: int):
    asked = {**OPTIONS, "preset": name}
    options, given = with_preset(asked, {"preset": name, "data": "somewhere"})
    assert options["shots"] == shots and options["queries"] == 16
    assert options["iterations"] == 400 * 100 and options["domain_block"] == 100
    assert options["pretrain_epochs"] == 400 and options["pretrain_batch"] == 16
    assert options["episodes"] == 1000 and options["test_queries"] == 15
    assert options["lr"] == options["meta_lr"] == 1e-3
    assert options["unseen"] == ("cub", "cars", "places", "plantae")
    # What goes on with such a run must agree with all of it.
    assert PRESETS[name].items() <= given.items()
    for unseen in options["unseen"]:
        settings = CrossDomainSettings(**{**options, "unseen": unseen})
        names = ["cars", "cub", "miniImagenet", "places", "plantae"]
        assert settings.resolved(names).base == "miniImagenet"


def test_what_is_asked_for_outdoes_the_preset():
    asked = {**OPTIONS, "preset": "paper-5shot", "iterations": 7}
    options, given = with_preset(asked, {"iterations": 7, "preset": "paper-5shot"})
    assert options["iterations"] == given["iterations"] == 7


def test_unknown_presets_and_built_in_data_are_refused():
    with pytest.raises(ValueError, match="unknown preset 'paper'; choose from paper-1"):
        with_preset({**OPTIONS, "preset": "paper"}, {})
    with pytest.raises(ValueError, match="for photographs: expected --data"):
        with_preset({**OPTIONS, "preset": "paper-1shot", "data": None}, {})
    with_preset({**OPTIONS, "preset": "paper-1shot", "data": None}, {}, resume=True)
