import dataclasses

import pytest

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.crossdomain.settings import CrossDomainSettings


def test_settings_come_back_from_their_dictionary():
    settings = CrossDomainSettings(ways=3, methods=("ft", "none"))
    assert CrossDomainSettings.from_dict(settings.to_dict()) == settings


def test_settings_of_another_version_are_refused():
    values = CrossDomainSettings().to_dict()
    values["colour"] = values.pop("ways")
    with pytest.raises(InputError, match="got a difference in colour, ways"):
        CrossDomainSettings.from_dict(values)


def test_only_what_differs_is_named():
    settings = CrossDomainSettings(ways=3, device="cpu")
    given = {"ways": 4, "shots": 5, "device": "auto"}
    assert settings.different(given) == ["ways"]
    assert settings.different({"device": "cuda"}) == ["device"]


def test_every_seed_counts_up_from_the_first():
    assert list(CrossDomainSettings(seed=3, seeds=2).all_seeds) == [3, 4]


def test_every_setting_says_what_it_is_and_whether_figures_depend_on_it():
    for field in dataclasses.fields(CrossDomainSettings):
        assert field.metadata["help"], field.name
    identity = CrossDomainSettings(ways=3).identity()
    assert identity["ways"] == 3 and "lr" in identity
    assert not {"unseen", "methods", "seed", "seeds", "workers"} & identity.keys()
    assert CrossDomainSettings.marked("may_change") == ("workers", "cache")


def test_what_may_change_is_changed_and_nothing_else_is():
    settings = CrossDomainSettings(ways=3)
    changed = settings.changed({"ways": 9, "workers": 2})
    assert (changed.ways, changed.workers) == (3, 2)
    assert settings.different({"workers": 2}) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment": 1}, "augment to be True or False, got 1"),
        ({"unseen": 3}, "unseen to be text, got 3"),
        ({"lr": True}, "lr to be positive and finite, got True"),
        ({"methods": "ft"}, r"got the text 'ft'; write \('ft',\)"),
        ({"test_queries": 0}, "test_queries to be a whole number of at least 1, got 0"),
    ],
)
def test_a_value_of_another_type_or_out_of_range_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        CrossDomainSettings(**changes)
