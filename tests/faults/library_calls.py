"""Calls of the library with wrong types and values.

A wrong call ends in an error that this package raises, with a message that says what it
expected, before anything has moved: weights, λ, gradients, buffers, optimizers and
random states. A value of another type that means the same gives the same numbers.
"""

import functools
import math
import random
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from faulty import HARMLESS, REFUSED, Fault
from small_calls import CALLS, Call, Numbers
from torch import nn

NAN, INF, LARGE = math.nan, math.inf, 1e300  # more than single precision holds


class Overflowing(torch.optim.SGD):
    """Puts infinity into one weight, after a usual step."""

    def step(self, closure: Any = None) -> None:
        super().step(closure)
        with torch.no_grad():
            self.param_groups[0]["params"][-1].view(-1)[0] = INF


#: Values that stand for no positive number, whole number, truth value, name or
#: function.
NUMBERS: list[Any] = [
    None, True, "0.1", NAN, INF, -1.0, 0, 1j, [0.1], {}, object(), 10**400, LARGE,
    np.float64(NAN), np.array([0.1, 0.2]), torch.tensor([0.1, 0.2]), torch.tensor(NAN),
]  # fmt: skip
COUNTS: list[Any] = [
    None, True, 1.5, "2", -1, NAN, INF, [1], np.float64(2), torch.tensor(1.5), b"1",
]  # fmt: skip
FLAGS: list[Any] = ["yes", 2, [], 1.0, torch.ones(2)]
NAMES: list[Any] = ["nonsense", "", 3, ["first"], b"first", np.array(["a", "b"])]
FUNCTIONS: list[Any] = [None, 3, "loss", torch.ones(())]
RESULTS: list[Callable[[Any], Any]] = [
    lambda loss: None,
    lambda loss: 1.0,
    lambda loss: "loss",
    lambda loss: (loss, loss),
    lambda loss: loss.sum() * torch.ones(2),
    lambda loss: loss * NAN,
    lambda loss: loss + INF,
    lambda loss: loss.detach(),
    lambda loss: loss * 1j,
    lambda loss: torch.tensor(3),
    lambda loss: loss + (loss * 0).sqrt(),  # finite, but its gradient is not
    lambda loss: loss.sum().item(),
]
GENERATORS: list[Any] = [3, "seed", np.random.default_rng(0)]
MODELS: list[Any] = [None, 3, "model", torch.ones(3), nn.ReLU(), nn.Linear]
CHOICES_OF_TENSORS: list[Any] = [
    [], {}, 3, 0.1, object(), [None], [3], torch.tensor([1, 2]), torch.zeros(3),
    [torch.full((5,), NAN, requires_grad=True)],
    [torch.full((5,), INF, requires_grad=True)],
]  # fmt: skip
OPTIMIZERS: list[Any] = [
    None, "sgd", 3, torch.optim.SGD,
    lambda p: torch.optim.LBFGS(p),
    lambda p: torch.optim.SGD(p, lr=NAN),
    lambda p: torch.optim.SGD(p, lr=INF),
    lambda p: torch.optim.SGD(p, lr=torch.tensor(NAN)),
    lambda p: torch.optim.SGD(p, lr=1e300),
    lambda p: Overflowing(p, lr=0.1),
    lambda p: torch.optim.RMSprop(p, lr=0.1, eps=0.0, alpha=1.0),
]  # fmt: skip
DICTS: list[Any] = [
    None, {}, [], 3, {"w": 1.0}, {"w": None}, {"w": torch.ones(5, dtype=torch.int64)},
    {"w": torch.full((5,), NAN)}, {"w": torch.full((5,), INF)},
]  # fmt: skip
SCHEDULES: list[Any] = [
    None, True, "0.1", NAN, INF, -1.0, 1j, [0.1], {}, object(), 10**400, LARGE,
    torch.tensor(NAN), torch.tensor([0.1, INF]), torch.tensor([1, 2]),
    torch.full((9,), 0.1), torch.full((0,), 0.1), torch.full((1, 2, 3), 0.1),
]  # fmt: skip

POOLS: dict[str, list[Any]] = {
    "number": NUMBERS,
    "rate": [v for v in NUMBERS if v is not None],
    "step": [v for v in NUMBERS if not (type(v) is int and v == 0 or v is LARGE)],
    "count": COUNTS,
    "flag": FLAGS,
    "name": NAMES,
    "function": FUNCTIONS,
    "result": RESULTS,
    "generator": GENERATORS,
    "model": MODELS,
    "tensors": CHOICES_OF_TENSORS,
    "optimizer": OPTIMIZERS,
    "dict": DICTS,
    "schedule": SCHEDULES,
}

#: The same value in another type.
SAME: dict[str, list[Callable[[Any], Any]]] = {
    "number": [np.float64],
    "rate": [np.float64, torch.tensor],
    "count": [np.int64],
    "schedule": [np.float64],
}


class Case(NamedTuple):
    """One call.

    Attributes:
        argument: the argument that is given another value.
        value: the value; a function of the right value for ``SAME``.
        same: whether it means the same as the right one.
    """

    argument: str
    value: Any
    same: bool


def cases(call: Call) -> Iterator[Case]:
    """Yield every wrong call, and those that mean the same."""
    for argument, role in call.roles.items():
        role, _, least = role.partition(":")
        for value in POOLS[role]:
            if value is None and least == "optional":
                continue
            yield Case(argument, value, same=False)
        if role == "count" and least != "0":
            yield Case(argument, 0, same=False)
        for other in SAME.get(role, ()):
            yield Case(argument, other, same=True)


def tried(call: Call, case: Case) -> str:
    """Make a call, and return how it ended.

    Raises:
        Fault: if it was neither refused nor right.
    """
    said = f"{call.name}({case.argument}={case.value!r:.60})"
    torch.manual_seed(0)
    problem = call.make()
    if case.same:
        expected = call.make_call(problem)
        torch.manual_seed(0)
        problem = call.make()
        right = call.usual(problem)[case.argument]
        found = call.make_call(problem, **{case.argument: case.value(right)})
        if not _equal(expected, found):
            raise Fault(f"{said}: expected {expected}, got {found}")
        return HARMLESS
    before = problem.state()
    try:
        found = call.make_call(problem, **{case.argument: case.value})
    except (ValueError, TypeError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        if "l2l_evograd" not in Path(last.filename).parts:
            raise Fault(f"{said}: raised in {last.filename}: {error}") from error
        if not any(word in str(error) for word in ("expected", "depend", "finite")):
            raise Fault(f"{said}: says only {error}") from error
    except Exception as error:
        raise Fault(f"{said}: {type(error).__name__}: {error}") from error
    else:
        raise Fault(f"{said}: accepted, got {found}")
    if not _equal(before, problem.state()):
        raise Fault(f"{said}: something has moved")
    return REFUSED


def _equal(left: Numbers, right: Numbers) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, b) for a, b in zip(left, right, strict=True)
    )


def _one(call: Call, seed: int, folder: Path) -> str:
    return tried(call, random.Random(seed).choice(list(cases(call))))


KINDS = {
    f"wrong argument of {call.name}": functools.partial(_one, call) for call in CALLS
}
