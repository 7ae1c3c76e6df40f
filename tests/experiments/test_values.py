import json
import math

import pytest
from few_settings import Settings

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.crossdomain.settings import CrossDomainSettings
from l2l_evograd.experiments.rotation.settings import RotationSettings
from l2l_evograd.experiments.values import (
    check_glyphs,
    checked,
    number,
    shown,
    whole_number,
)


@pytest.mark.parametrize("text", ["7", "+7", "007", " 7 "])
def test_digits_are_a_whole_number(text):
    assert whole_number(text) == 7


@pytest.mark.parametrize(
    "text", ["", "1_000", "１２", "٣", "1e3", "2.5", "0x1", "9" * 31, "--5", "5\n"]
)
def test_other_texts_are_no_whole_number(text):
    with pytest.raises(ValueError, match="expected a whole number, got"):
        whole_number(text)


@pytest.mark.parametrize("text", ["0.25", ".25", "+25e-2", "2.5E-1", "0.2500"])
def test_decimals_are_a_number(text):
    assert number(text) == 0.25


@pytest.mark.parametrize(
    "text", ["", "nan", "inf", "1_0.5", "１.5", "0x1p3", ".", "e3"]
)
def test_other_texts_are_no_number(text):
    with pytest.raises(ValueError, match="expected a finite number, got"):
        number(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 1e300}, r"lr to be a number from 1e-12 to 1e\+06, got 1e\+300"),
        ({"lr": 10**400}, r"lr to be a number from 1e-12 to 1e\+06, got 10000"),
        ({"lr": 10**5000}, "lr to be a number from .* too long to be shown"),
        ({"lr": 1e-300}, r"lr to be a number from 1e-12 to 1e\+06"),
        ({"lr": math.nan}, "lr to be positive and finite, got nan"),
        ({"sigma": 1e-30}, "sigma to be a number from 1e-06 to 100"),
        (
            {"iterations": 10**30},
            "iterations to be a whole number of at most 100000000",
        ),
        ({"seed": 2**32}, "seed to be a whole number of at most 4294967295"),
        ({"seeds": 10**12}, "seeds to be a whole number of at most 10000"),
        ({"data": ""}, "data to be 1 to 4096 letters"),
        ({"data": "a\0b"}, "data to be 1 to 4096 letters in UTF-8 without NUL"),
        ({"data": "\ud800"}, "data to be 1 to 4096 letters in UTF-8"),
        ({"data": "x" * 5000}, "got 5000 letters"),
        ({"methods": 3}, "methods to be a sequence of names, got 3"),
        ({"methods": {"none": 1}}, "methods to be a sequence of names, got {'none'"),
        ({"methods": (["none"],)}, "methods to be one of"),
    ],
)
def test_a_value_out_of_range_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        RotationSettings(**changes)


def test_a_value_has_the_type_of_its_setting():
    settings = RotationSettings(lr=1, methods=["none"])
    assert json.dumps(settings.to_dict()["lr"]) == "1.0"
    assert settings.methods == ("none",)
    assert str(CrossDomainSettings(start_scale=-0.0).start_scale) == "0.0"


def test_the_ends_of_a_range_are_in_it():
    assert RotationSettings(lr=1e6, sigma=1e-6, seed=2**32 - 1).seed == 2**32 - 1
    marks = {"least": 0, "most": 2, "choices": ()}
    assert [checked("n", int, marks, n) for n in (0, 2)] == [0, 2]
    with pytest.raises(InputError, match="n to be a whole number of at least 0"):
        checked("n", int, marks, True)


def test_the_settings_before_still_have_their_bounds():
    with pytest.raises(InputError, match="ways to be a whole number of at least 2"):
        Settings(ways=1)


def test_a_long_value_is_cut():
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert len(shown("x" * 10**6)) == 80
    assert "list that is too long" in shown(deep)
    while deep:  # one by one, or the interpreter's stack overflows
        deep = deep.pop()  # type: ignore[assignment]


def test_glyphs_are_small():
    check_glyphs(None)
    check_glyphs(128)
    with pytest.raises(InputError, match="at most 128 pixels"):
        check_glyphs(129)
