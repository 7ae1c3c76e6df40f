"""The space of configurations: ConfigSpace's, and points of the unit cube in it."""

import copy
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import ConfigSpace
import numpy as np
from ConfigSpace.hyperparameters import Hyperparameter
from ConfigSpace.util import deactivate_inactive_hyperparameters

from l2l_evograd.checks import InputError

_FORMS = "(low, high), (low, high, 'log') or a list of choices"


class Space:
    """A space to search.

    The distributions of a ConfigurationSpace (weights of choices, normal, beta) count
    for :meth:`draw` only. In the unit cube all values of a hyperparameter, or of its
    logarithm, are equally wide.

    Args:
        space: a ConfigurationSpace, or a range or list of choices for each name.

    Attributes:
        choices: for each dimension of the unit cube the number of its choices; 0 for a
            number or ordinal. Constants are no dimensions.
        forbidden: number of forbidden clauses.

    Raises:
        InputError: if the space is none, or leaves nothing to search.
    """

    def __init__(
        self, space: ConfigSpace.ConfigurationSpace | Mapping[str, Any]
    ) -> None:
        # A copy: drawing from a space changes the state of its generator.
        self._space = (
            copy.deepcopy(space)
            if isinstance(space, ConfigSpace.ConfigurationSpace)
            else _space_of(space)
        )
        self._varied = [each for each in self._space.values() if each.size > 1]
        if not self._varied:
            raise InputError(
                "expected a space with something to search, got one with a single "
                "configuration; give at least one range or two choices"
            )
        self.choices = [
            int(each.size)
            if isinstance(each, ConfigSpace.CategoricalHyperparameter)
            else 0
            for each in self._varied
        ]
        self.forbidden = len(self._space.forbidden_clauses)

    def describe(self) -> dict[str, Any]:
        """Return the space in the form of JSON, to tell it from others."""
        described = self._space.to_serialized_dict()
        return json.loads(json.dumps(described, default=repr))

    def seed(self, seed: int) -> None:
        """Seed what :meth:`draw` draws. The seed is below 2³²."""
        self._space.seed(seed)

    def draw(self) -> dict[str, Any]:
        """Return a configuration drawn from the space."""
        return _plain(self._space.sample_configuration())

    def at(self, point: Sequence[float]) -> dict[str, Any]:
        """Return the configuration at a point of the unit cube.

        Hyperparameters that a condition switches off are left out.

        Args:
            point: a number in [0, 1] for each dimension. Choice i of m is at
                [i/m, (i + 1)/m).
        """
        values = {each.name: each.default_value for each in self._space.values()}
        for each, part in zip(self._varied, point, strict=True):
            values[each.name] = _value(each, float(part))
        return _plain(deactivate_inactive_hyperparameters(values, self._space))


def _value(hyperparameter: Hyperparameter, part: float) -> Any:
    size = hyperparameter.size
    if isinstance(
        hyperparameter,
        ConfigSpace.CategoricalHyperparameter | ConfigSpace.OrdinalHyperparameter,
    ):
        vector: float = min(int(part * size), int(size) - 1)
    elif (
        isinstance(hyperparameter, ConfigSpace.UniformIntegerHyperparameter)
        and not hyperparameter.log
    ):
        # Rounding instead would make the first and the last number half as likely.
        vector = min(int(part * size), int(size) - 1) / (size - 1)
    else:
        vector = part
    value = hyperparameter.to_value(vector)
    if isinstance(hyperparameter, ConfigSpace.hyperparameters.FloatHyperparameter):
        # Logarithm and exponential do not always meet the bounds exactly.
        value = min(max(value, hyperparameter.lower), hyperparameter.upper)
    return value


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration with Python's own numbers and strings."""
    return {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in config.items()
    }


def _space_of(given: Mapping[str, Any]) -> ConfigSpace.ConfigurationSpace:
    if not isinstance(given, Mapping) or not given:
        raise InputError(
            f"expected space to be a ConfigurationSpace or a dictionary that gives "
            f"each name {_FORMS}, got {given!r}"
        )
    space = ConfigSpace.ConfigurationSpace()
    for name, values in given.items():
        if not isinstance(name, str) or not name:
            raise InputError(f"expected names in space to be strings, got {name!r}")
        space.add(_hyperparameter(name, values))
    return space


def _hyperparameter(name: str, values: Any) -> Hyperparameter:
    if isinstance(values, list):
        return _categorical(name, values)
    if not isinstance(values, tuple) or len(values) not in (2, 3):
        raise InputError(f"expected space[{name!r}] to be {_FORMS}, got {values!r}")
    low, high, *scale = values
    if scale not in ([], ["log"]):
        raise InputError(
            f"expected the third entry of space[{name!r}] to be 'log', got {scale[0]!r}"
        )
    if not _is_number(low) or not _is_number(high) or not low < high:
        raise InputError(
            f"expected space[{name!r}] to have two finite numbers, the lower one "
            f"first, got {values!r}; a list gives choices"
        )
    if scale and low <= 0:
        raise InputError(
            f"expected space[{name!r}] to have bounds above 0 on a logarithmic scale, "
            f"got {values!r}"
        )
    whole = isinstance(low, int) and isinstance(high, int)
    if whole:
        return ConfigSpace.Integer(name, (low, high), log=bool(scale))
    return ConfigSpace.Float(name, (float(low), float(high)), log=bool(scale))


def _categorical(name: str, values: list[Any]) -> Hyperparameter:
    simple = all(
        value is None or isinstance(value, str | bool) or _is_number(value)
        for value in values
    )
    # repr: True and 1 are equal, but two choices.
    if not values or not simple or len({repr(value) for value in values}) < len(values):
        raise InputError(
            f"expected the choices of space[{name!r}] to be different strings, "
            f"numbers, booleans or None, at least one, got {values!r}; give other "
            f"things a name each and look them up in train"
        )
    return ConfigSpace.Categorical(name, values)


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )
