from typing import Any

import pytest

from l2l_evograd.fewshot.methods import METHODS
from l2l_evograd.fewshot.settings import CrossDomainSettings, default_image_size

NAMES = ["texture", "print", "sketch", "outline"]


def test_the_defaults_compare_all_methods():
    assert CrossDomainSettings().methods == tuple(METHODS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ways": 1}, "ways to be at least 2, got 1"),
        ({"shots": 0}, "shots to be at least 1"),
        ({"queries": 0}, "queries to be at least 1"),
        ({"iterations": 0}, "iterations to be at least 1"),
        ({"pretrain_epochs": -1}, "pretrain_epochs to be at least 0"),
        ({"episodes": 1}, "episodes to be at least 2"),
        ({"seeds": 0}, "seeds to be at least 1"),
        ({"save_every": 0}, "save_every to be at least 1"),
        ({"image_size": 8}, "image_size to be at least 16"),
        ({"lr": 0.0}, "lr to be positive and finite"),
        ({"meta_lr": float("inf")}, "meta_lr to be positive and finite"),
        ({"head": "linear"}, "unknown head 'linear'; choose from protonet, relation"),
        ({"backbone": "vgg"}, "unknown backbone 'vgg'; choose from cnn4, conv4, "),
        ({"methods": ("maml",)}, "unknown method 'maml'; choose from none, ft, lft-"),
        ({"methods": ()}, "at least one method of none, ft"),
        ({"methods": ("ft", "ft")}, "each method once, got ft, ft"),
        ({"base": "sketch"}, "another one than the unseen domain 'sketch'"),
        ({"device": "toaster"}, "unknown device 'toaster'; choose from auto, cpu"),
        ({"device": "meta"}, "device 'meta' is not supported"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not there"),
    ],
)
def test_a_value_out_of_range_is_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        CrossDomainSettings(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ways": 2.5}, "ways to be a whole number, got 2.5"),
        ({"seed": True}, "seed to be a whole number, got True"),
        ({"lr": "fast"}, "lr to be a number, got 'fast'"),
        ({"methods": "ft"}, "sequence of names, got the text 'ft'"),
    ],
)
def test_a_value_of_another_type_is_refused(changes: dict[str, Any], message: str):
    with pytest.raises(TypeError, match=message):
        CrossDomainSettings(**changes)


def test_print_is_the_base_of_the_built_in_domains():
    resolved = CrossDomainSettings().resolved(NAMES, 32)
    assert (resolved.base, resolved.image_size) == ("print", 32)
    assert resolved.device in ("cpu", "cuda")


def test_without_print_the_first_seen_domain_is_the_base():
    assert CrossDomainSettings(unseen="print").resolved(NAMES).base == "outline"


def test_the_first_seen_domain_in_alphabetical_order_is_the_base_of_other_data():
    settings = CrossDomainSettings(unseen="birds", data="somewhere")
    assert settings.resolved(["planes", "cars", "birds"]).base == "cars"


def test_an_image_size_that_was_asked_for_stays():
    assert CrossDomainSettings(image_size=48).resolved(NAMES, 32).image_size == 48


@pytest.mark.parametrize(
    ("changes", "names", "message"),
    [
        ({"unseen": "photo"}, NAMES, "unknown unseen domain 'photo'; choose from tex"),
        ({"base": "photo"}, NAMES, "unknown base domain 'photo'; choose from outline"),
        ({}, ["sketch", "print"], "at least two seen domains .* got print"),
        ({}, ["sketch"], "at least two seen domains .* got none"),
    ],
)
def test_domains_that_are_not_there_are_refused(
    changes: dict[str, Any], names: list[str], message: str
):
    with pytest.raises(ValueError, match=message):
        CrossDomainSettings(**changes).resolved(names)


def test_settings_come_back_from_their_dictionary():
    settings = CrossDomainSettings(ways=3, methods=("ft", "none"))
    assert CrossDomainSettings.from_dict(settings.to_dict()) == settings


def test_settings_of_another_version_are_refused():
    values = CrossDomainSettings().to_dict()
    values["colour"] = values.pop("ways")
    with pytest.raises(ValueError, match="got others in colour, ways"):
        CrossDomainSettings.from_dict(values)


def test_only_what_differs_is_named():
    settings = CrossDomainSettings(ways=3, device="cpu")
    given = {"ways": 4, "shots": 5, "device": "auto"}
    assert settings.different(given) == ["ways"]
    assert settings.different({"device": "cuda"}) == ["device"]


def test_every_seed_counts_up_from_the_first():
    assert list(CrossDomainSettings(seed=3, seeds=2).all_seeds) == [3, 4]


@pytest.mark.parametrize(
    ("backbone", "own_size", "expected"),
    [
        ("cnn4", None, 32),
        ("resnet10", None, 32),
        ("cnn4", 500, 84),
        ("resnet10", 500, 224),
        ("resnet10", 100, 100),
        ("cnn4", 32, 32),
    ],
)
def test_images_are_not_enlarged_unasked(
    backbone: str, own_size: int | None, expected: int
):
    assert default_image_size(backbone, own_size) == expected
