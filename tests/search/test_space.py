from collections import Counter

import pytest
from searching import SPACE

from l2l_evograd.checks import InputError

ConfigSpace = pytest.importorskip("ConfigSpace")

from l2l_evograd.search.space import Space  # noqa: E402


def corner(space, part):
    return space.at([part] * len(space.choices))


def test_a_dictionary_gives_ranges_and_choices():
    space = Space(SPACE)
    assert corner(space, 0.0) == {"kind": "a", "layers": 1, "lr": 1e-4}
    assert corner(space, 1.0) == {"kind": None, "layers": 4, "lr": 1.0}
    middle = corner(space, 0.5)
    assert middle["lr"] == pytest.approx(1e-2)
    assert (middle["kind"], middle["layers"]) == ("b", 3)


def test_values_are_of_pythons_own_types():
    space = Space({**SPACE, "flag": [True, False], "size": [1, 2.5], "half": (0, 0.5)})
    for config in (space.draw(), corner(space, 0.3)):
        assert type(config["layers"]) is int
        assert type(config["lr"]) is type(config["half"]) is float
        assert type(config["flag"]) is bool
        assert type(config["size"]) in (int, float)


@pytest.mark.parametrize("name", ["layers", "kind", "order"])
def test_each_of_m_values_has_an_equal_part_of_the_cube(name):
    space = ConfigSpace.ConfigurationSpace()
    space.add(
        ConfigSpace.Integer("layers", (1, 4)),
        ConfigSpace.Categorical("kind", ["a", "b", "c"]),
        ConfigSpace.OrdinalHyperparameter("order", ["s", "m", "l", "xl", "xxl"]),
    )
    cube = Space(space)
    counts = Counter(corner(cube, (i + 0.5) / 600)[name] for i in range(600))
    assert len(set(counts.values())) == 1


@pytest.mark.parametrize("bounds", [(1e-3, 0.3), (0.1, 0.7), (3e-7, 1 / 3)])
@pytest.mark.parametrize("scale", [(), ("log",)])
def test_bounds_are_reached_and_not_passed(bounds, scale):
    space = Space({"x": (*bounds, *scale)})
    ends = (space.at([0.0])["x"], space.at([1.0])["x"])
    assert ends == pytest.approx(bounds, rel=1e-12)
    assert bounds[0] <= ends[0] < ends[1] <= bounds[1]


def test_conditions_switch_off_and_constants_are_no_dimension():
    space = ConfigSpace.ConfigurationSpace()
    kind = ConfigSpace.Categorical("kind", ["sgd", "adam"])
    momentum = ConfigSpace.Float("momentum", (0.0, 1.0))
    space.add(kind, momentum, ConfigSpace.Constant("steps", 3))
    space.add(ConfigSpace.EqualsCondition(momentum, kind, "sgd"))
    cube = Space(space)
    assert sorted(cube.choices) == [0, 2]
    assert corner(cube, 0.4) == {"kind": "sgd", "momentum": 0.4, "steps": 3}
    assert corner(cube, 0.6) == {"kind": "adam", "steps": 3}


def test_the_space_given_is_left_as_it_was():
    given = ConfigSpace.ConfigurationSpace({"x": (0.0, 1.0)}, seed=3)
    other = ConfigSpace.ConfigurationSpace({"x": (0.0, 1.0)}, seed=3)
    space = Space(given)
    space.seed(1)
    space.draw()
    assert dict(given.sample_configuration()) == dict(other.sample_configuration())


def test_spaces_are_told_apart():
    assert Space(SPACE).describe() == Space(dict(SPACE)).describe()
    assert Space(SPACE).describe() != Space({**SPACE, "layers": (1, 5)}).describe()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "expected space to be a ConfigurationSpace or a dictionary"),
        ([("x", (0, 1))], "expected space to be a ConfigurationSpace or a dictionary"),
        ({3: (0, 1)}, "expected names in space to be strings, got 3"),
        ({"x": 3}, r"expected space\['x'\] to be \(low, high\), .* got 3"),
        ({"x": (1,)}, r"expected space\['x'\] to be \(low, high\)"),
        ({"x": (0, 1, "lin")}, "third entry of .* to be 'log', got 'lin'"),
        ({"x": (1, 0)}, "two finite numbers, the lower one first"),
        ({"x": (1, 1)}, "two finite numbers, the lower one first"),
        ({"x": (0, float("inf"))}, "two finite numbers, the lower one first"),
        ({"x": (float("nan"), 1)}, "two finite numbers, the lower one first"),
        ({"x": (False, True)}, "two finite numbers, the lower one first"),
        ({"x": ("a", "b")}, "two finite numbers, the lower one first"),
        ({"x": (0, 1, "log")}, "bounds above 0 on a logarithmic scale"),
        ({"x": []}, "expected the choices of .* to be different"),
        ({"x": [1, 1]}, "expected the choices of .* to be different"),
        ({"x": [(1, 2), (3,)]}, "expected the choices of .* give other things a name"),
        ({"x": [1]}, "a space with something to search"),
    ],
)
def test_what_is_no_space_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        Space(given)
