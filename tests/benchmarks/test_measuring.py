import gc
import os
import weakref
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cost_records import CostRecord, print_records
from benchmarks.measuring import in_fresh_process, operations_of, warmed_up


def test_a_method_that_raises_is_reported(capsys):
    def failing() -> None:
        raise OverflowError("too much\nof it")

    running, errors = warmed_up({"good": lambda: None, "bad": failing})
    assert list(running) == ["good"] and operations_of(running["good"]) == 0
    assert errors == {"bad": "OverflowError: too much"}
    print_records([CostRecord("p", "bad", error=errors["bad"])])
    assert "bad fails: OverflowError: too much" in capsys.readouterr().out


class Traced(nn.Module):
    """A doubling whose autograd nodes own a token, so that a test sees them die."""

    class Token:
        pass

    class Doubling(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, tokens):
            ctx.token = Traced.Token()
            tokens.append(weakref.ref(ctx.token))
            return 2 * x

        @staticmethod
        def backward(ctx, grad):
            return 2 * grad, None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.Doubling.apply(x, self.tokens)


@pytest.mark.parametrize(
    ("count", "kept"),
    [(operations_of, False), (lambda call: run_in(FlopCounterMode, call), True)],
    ids=["ours", "torch"],
)
def test_graphs_are_freed_while_operations_are_counted(count, kept):
    middle = Traced()
    middle.tokens = []
    net = nn.Sequential(nn.Linear(3, 4), middle, nn.Linear(4, 1))
    alive = []

    def call() -> None:
        net(torch.ones(2, 3)).sum().backward()
        alive.append(middle.tokens[0]() is not None)

    gc.disable()
    try:
        count(call)
    finally:
        gc.enable()
    assert alive == [kept]


def run_in(counter, call) -> None:
    with counter(display=False):
        call()


def test_a_product_of_matrices_is_counted():
    assert operations_of(lambda: torch.ones(2, 3) @ torch.ones(3, 4)) == 2 * 2 * 3 * 4


def test_a_process_that_ends_early_leaves_no_peak():
    found, error = in_fresh_process(os._exit, 1)
    assert found == [] and "ended early, code 1" in str(error)
    assert in_fresh_process(range, 3) == ([0, 1, 2], None)


def test_what_came_before_an_error_or_an_early_end_is_kept():
    found, error = in_fresh_process(map, divmod, (7, 1), (2, 0))
    assert found == [(3, 1)] and str(error).startswith("ZeroDivisionError: ")
    calls = [partial(int, 7), partial(os._exit, 3)]
    found, error = in_fresh_process(map, partial.__call__, calls)
    assert found == [7] and str(error).endswith("ended early, code 3")


def test_first_calls_see_the_same_random_state_and_their_results_are_kept():
    found = {}
    calls = {"one": lambda: torch.rand(2), "other": lambda: torch.rand(2)}
    warmed_up(calls, lambda name, result: found.update({name: result}))
    assert torch.equal(found["one"], found["other"])
