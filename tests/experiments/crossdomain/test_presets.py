import pytest

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.crossdomain.presets import PRESETS, with_preset
from l2l_evograd.experiments.crossdomain.settings import CrossDomainSettings


def test_without_a_preset_nothing_changes():
    assert with_preset({"ways": 3}, None) == {"ways": 3}


@pytest.mark.parametrize(("name", "shots"), [("paper-1shot", 1), ("paper-5shot", 5)])
def test_a_preset_is_made_of_the_published_settings(name: str, shots: int):
    given = with_preset({"data": "somewhere"}, name)
    assert given["shots"] == shots and given["queries"] == 16
    assert given["iterations"] == 400 * 100 and given["domain_block"] == 100
    assert given["pretrain_epochs"] == 400 and given["pretrain_batch"] == 16
    assert given["episodes"] == 1000 and given["test_queries"] == 15
    assert given["seeds"] == 1  # five trainings would take days
    assert (given["start_scale"], given["start_shift"]) == (0.3, 0.5)
    assert given["lr"] == given["meta_lr"] == 1e-3
    domains = given["unseen"].split(",")
    assert domains == ["cub", "cars", "places", "plantae"]
    # A resumed run must agree with all of it.
    assert PRESETS[name].items() <= given.items()
    for unseen in domains:
        settings = CrossDomainSettings(**{**given, "unseen": unseen})
        names = [*domains, "miniImagenet"]
        assert settings.resolved(names, 224).base == "miniImagenet"


def test_what_is_asked_for_overrides_the_preset():
    given = with_preset({"iterations": 7, "data": "here"}, "paper-5shot")
    assert given["iterations"] == 7


def test_unknown_presets_and_built_in_data_are_refused():
    with pytest.raises(InputError, match="preset to be one of 'paper-1shot', .*'pap"):
        with_preset({}, "paper")
    with pytest.raises(InputError, match="for photographs: expected --data"):
        with_preset({}, "paper-1shot")
    with_preset({}, "paper-1shot", resume=True)
