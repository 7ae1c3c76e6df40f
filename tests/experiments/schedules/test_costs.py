"""What a run costs, counted; and that no search passes its budget."""

import pytest
import torch

from l2l_evograd.experiments.schedules.methods import (
    METHODS,
    gradients_per_run,
    products,
)
from l2l_evograd.experiments.schedules.training import find_schedule
from l2l_evograd.unroll.symmetry import Symmetry

WITHOUT_LIBRARY = [name for name in METHODS if METHODS[name].family != "black box"]


class Counter:
    """Counts gradients: a product of a Hessian and a vector is a gradient of them."""

    def __init__(self) -> None:
        self.gradients = 0
        self.products = 0
        self._grad = torch.autograd.grad

    def __call__(self, outputs, inputs, grad_outputs=None, **options):
        if grad_outputs is None:
            self.gradients += 1
        else:
            batched = options.get("is_grads_batched", False)
            self.products += len(grad_outputs[0]) if batched else 1
        return self._grad(outputs, inputs, grad_outputs, **options)


@pytest.mark.parametrize("method", WITHOUT_LIBRARY)
def test_the_gradients_that_a_search_counts_are_those_it_computes(
    method, problem, monkeypatch
):
    made = problem(fresh_seeds=1)
    counter = Counter()
    monkeypatch.setattr(torch.autograd, "grad", counter)
    # Eight looks at a run, whatever its length, are not counted.
    monkeypatch.setattr(Symmetry, "due", lambda self, step: False)
    found = find_schedule(made, method, 0)
    counted = counter.gradients + 2 * counter.products
    counted -= made.settings.steps  # the run with a fresh seed
    if method not in ("constant", "cosine", "greedy"):
        counted -= found["runs"]  # the outer loss of each finished run
    assert found["gradients"] == counted
    # The budget is spent as far as another run does not fit in.
    cost = made.settings.gradients_per_run(method)
    assert found["gradients"] == found["runs"] * cost
    assert 0 <= made.settings.budget - found["gradients"] < cost


def test_costs_in_numbers():
    costs = {name: gradients_per_run(name, 200, 8) for name in METHODS}
    assert costs == {
        **dict.fromkeys(("constant", "cosine", "dehb", "random"), 200),
        **{"greedy": 400, "fds": 1984, "reversible": 800, "reversible-steps": 800},
    }


@pytest.mark.parametrize("method", ["dehb", "random"])
def test_the_library_spends_the_budget(method, problem, monkeypatch):
    pytest.importorskip("dehb")
    made = problem(fresh_seeds=1)
    counter = Counter()
    monkeypatch.setattr(torch.autograd, "grad", counter)
    found = find_schedule(made, method, 0)
    # One new run by the library and one by the experiment.
    assert found["gradients"] == counter.gradients - 2 * made.settings.steps
    assert counter.products == 0
    left = made.settings.budget - found["gradients"]
    assert 0 <= left < made.settings.steps


@pytest.mark.parametrize(("steps", "windows"), [(12, 3), (14, 3), (7, 7), (5, 1)])
def test_products_are_those_of_tangents_that_are_not_zero(steps, windows):
    window = [t * windows // steps for t in range(steps)]
    # At step t, the windows of all earlier steps have moved the weights.
    assert products(steps, windows) == sum(len(set(window[:t])) for t in range(steps))
