from typing import Any

import pytest

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.crossdomain.methods import METHODS
from l2l_evograd.experiments.crossdomain.settings import CrossDomainSettings
from l2l_evograd.experiments.verdicts import LEAST_SEEDS

NAMES = ["texture", "print", "inverse", "outline"]


def test_the_defaults_compare_all_methods_over_enough_seeds():
    settings = CrossDomainSettings()
    assert settings.methods == tuple(METHODS)
    assert settings.seeds >= LEAST_SEEDS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ways": 1}, "ways to be a whole number of at least 2"),
        ({"shots": 0}, "shots to be a whole number of at least 1"),
        ({"queries": 0}, "queries to be a whole number of at least 1"),
        ({"iterations": 0}, "iterations to be a whole number of at least 1"),
        ({"pretrain_epochs": -1}, "pretrain_epochs to be a whole number of at least 0"),
        ({"episodes": 1}, "episodes to be a whole number of at least 2"),
        ({"seeds": 0}, "seeds to be a whole number of at least 1"),
        ({"save_every": 0}, "save_every to be a whole number of at least 1"),
        ({"image_size": 8}, "image_size to be a whole number of at least 16"),
        ({"lr": 0.0}, "lr to be positive and finite"),
        ({"meta_lr": float("inf")}, "meta_lr to be positive and finite"),
        ({"start_scale": -0.1}, "start_scale to be at least 0 and finite"),
        ({"start_shift": float("nan")}, "start_shift to be at least 0 and finite"),
        ({"head": "linear"}, "head to be one of 'protonet', .*, got 'linear'"),
        ({"backbone": "vgg"}, "backbone to be one of 'cnn4', .*, got 'vgg'"),
        ({"methods": ("maml",)}, "methods to be one of 'none', .*, got 'maml'"),
        ({"methods": ()}, "methods to be one or more of none, ft"),
        ({"methods": ("ft", "ft")}, "each at most once, got ft, ft"),
        ({"unseen": "sketch", "base": "sketch"}, "other than the unseen .* 'sketch'"),
    ],
)
def test_a_value_out_of_range_is_refused(changes: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        CrossDomainSettings(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ways": 2.5}, "ways to be a whole number of at least 2, got 2.5"),
        ({"seed": True}, "seed to be a whole number of at least 0, got True"),
        ({"lr": "fast"}, "lr to be positive and finite, got 'fast'"),
        ({"methods": "ft"}, "sequence of names, got the text 'ft'"),
    ],
)
def test_a_value_of_another_type_is_refused(changes: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        CrossDomainSettings(**changes)


def test_print_is_the_base_of_the_built_in_domains():
    resolved = CrossDomainSettings().resolved(NAMES, 32)
    assert (resolved.base, resolved.image_size) == ("print", 32)
    assert resolved.device in ("cpu", "cuda")


def test_without_print_the_first_seen_domain_is_the_base():
    assert CrossDomainSettings(unseen="print").resolved(NAMES, 32).base == "inverse"


def test_the_first_seen_domain_in_alphabetical_order_is_the_base_of_other_data():
    settings = CrossDomainSettings(unseen="birds", data="somewhere")
    assert settings.resolved(["planes", "cars", "birds"], 32).base == "cars"


def test_an_image_size_that_was_asked_for_stays():
    assert CrossDomainSettings(image_size=48).resolved(NAMES, 32).image_size == 48


@pytest.mark.parametrize(
    ("changes", "names", "message"),
    [
        (
            {"unseen": "photo"},
            NAMES,
            "unseen domain to be one of 'texture', .* got 'photo'",
        ),
        (
            {"base": "photo"},
            NAMES,
            "base domain to be one of 'outline', .* got 'photo'",
        ),
        ({}, ["inverse", "print"], "at least two seen domains .* got print"),
        ({}, ["inverse"], "at least two seen domains .* got none"),
    ],
)
def test_domains_that_are_not_there_are_refused(
    changes: dict[str, Any], names: list[str], message: str
):
    with pytest.raises(InputError, match=message):
        CrossDomainSettings(**changes).resolved(names, 32)
