import pytest

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.fewshot.settings import FewShotSettings
from l2l_evograd.experiments.noisy_labels.settings import NoisyLabelSettings
from l2l_evograd.experiments.rotation.settings import RotationSettings
from l2l_evograd.experiments.search.space import (
    check_space,
    parse_assignments,
    parse_range,
    range_text,
    split_assignment,
)


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("lr", "1e-4..0.1:log", (1e-4, 0.1, "log")),
        ("lr", "0.5 .. 2", (0.5, 2.0)),
        ("candidates", "2..8", (2, 8)),
        ("candidates", "2,4,8", [2, 4, 8]),
        ("lr", "1", [1.0]),
        ("data", "here,there", ["here", "there"]),
    ],
)
def test_a_range_is_read_with_the_type_of_its_setting(name, text, values):
    found = parse_range(RotationSettings, name, text)
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]
    assert parse_range(RotationSettings, name, range_text(found)) == values


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rate", "1..2", "rotation has no setting rate: expected methods, seed"),
        ("lr", "1..x", "expected lr to be a number, got 'x'"),
        ("candidates", "2..4.5", "expected candidates to be a whole number, got '4.5'"),
        ("lr", "2..1", "with LOW < HIGH, got 2..1"),
        ("lr", "0..1:log", "with LOW < HIGH and LOW above 0, got 0..1:log"),
        ("lr", "1..2:exp", "expected lr=LOW..HIGH:log, got lr=1..2:exp"),
        ("candidates", "2,2", "expected each value of candidates once, got 2,2"),
        ("data", "a..b", "expected a list of values of data, such as A,B, got a..b"),
        ("methods", "none,exact", "with single values, got methods"),
    ],
)
def test_a_range_that_cannot_be_read_is_refused(name, text, message):
    with pytest.raises(InputError, match=message):
        parse_range(RotationSettings, name, text)


def test_assignments_have_the_types_of_their_settings():
    found = parse_assignments(
        NoisyLabelSettings,
        [
            "batch-size=3",
            "lr=1",
            "no_augment=True",
            "methods=exact, guided",
            "data=a=b",
        ],
    )
    assert found == {
        **{"batch_size": 3, "lr": 1.0, "no_augment": True},
        **{"methods": ("exact", "guided"), "data": "a=b"},
    }
    assert type(found["lr"]) is float
    with pytest.raises(InputError, match="expected no_augment to be true or false"):
        parse_assignments(NoisyLabelSettings, ["no_augment=1"])


@pytest.mark.parametrize("text", ["lr", "=1", "lr=", ""])
def test_an_assignment_without_both_sides_is_refused(text):
    with pytest.raises(InputError, match="expected --set NAME=VALUE, got"):
        split_assignment("--set", text, "NAME=VALUE")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            {"candidates": (1, 8)},
            "contains candidates=1: expected candidates to be a w",
        ),
        ({"lr": [0.1, 0.0]}, "contains lr=0.0: expected lr to be positive"),
    ],
)
def test_values_out_of_bounds_are_refused(space, message):
    check_space(RotationSettings, {"candidates": (2, 8), "lr": [0.1]}, {})
    with pytest.raises(InputError, match=message):
        check_space(RotationSettings, space, {})


def test_values_that_do_not_go_together_are_refused():
    """Each value alone is accepted beside the default of the other."""
    space = {"train_shots": (4, 10), "ways": (4, 5)}
    check_space(FewShotSettings, space, {"batch_size": 16})
    with pytest.raises(
        InputError, match="contains train_shots=4, ways=4: expected a ba"
    ):
        check_space(FewShotSettings, space, {"batch_size": 17})
