"""Meta-gradients of each method, held against others that must be the same."""

import copy

import pytest
import torch
from small_tasks import images, lesson, tiny_algorithm, tiny_network
from torch.nn import functional

from l2l_evograd import EvoGradMetaOptimizer
from l2l_evograd.experiments.fewshot.evaluation import accuracies
from l2l_evograd.experiments.fewshot.images import Task
from l2l_evograd.experiments.fewshot.methods import METHODS
from l2l_evograd.experiments.fewshot.settings import INITS
from l2l_evograd.warp_layers import WarpLayer2d, warp_layers


def learned(method: str, share: float = 1.0, **changes):
    """Return an algorithm in double precision, and its gradients after one task."""
    algorithm = tiny_algorithm(method, **changes).double()
    algorithm.begin(3)
    algorithm.learn(doubled(lesson(method)), share)
    return algorithm, gradients(algorithm)


def doubled(given):
    query = given.query and (given.query[0].double(), given.query[1])
    return given._replace(inner=[(x.double(), y) for x, y in given.inner], query=query)


def gradients(algorithm) -> dict[str, torch.Tensor]:
    """Return the gradients by the name in a network without warp layers."""
    return {
        plain(name): parameter.grad.clone()
        for name, parameter in algorithm.named_parameters()
        if parameter.grad is not None
    }


def plain(name: str) -> str:
    name = name.removeprefix("meta.").removeprefix("module.")
    for block in range(4):  # a block with a warp layer is a sequence of both
        name = name.replace(f"body.0.{block}.0.", f"body.0.{block}.")
    return name


def assert_same(one, other, rtol: float = 1e-9) -> None:
    assert one.keys() == other.keys() and one
    for name, gradient in one.items():
        torch.testing.assert_close(gradient, other[name], rtol=rtol, atol=rtol / 100)


@pytest.mark.parametrize("first_order", [False, True])
def test_maml_is_that_of_learn2learn_and_of_this_package(first_order):
    _, found = learned("fomaml" if first_order else "maml")
    meta = EvoGradMetaOptimizer(tiny_network().double(), 0.1, first_order=first_order)
    learner, given = meta.clone(), doubled(lesson("maml"))
    for x, y in given.inner:
        learner.adapt(functional.cross_entropy(learner(x), y))
    x, y = given.query
    functional.cross_entropy(learner(x), y).backward()
    assert_same(found, {plain(n): p.grad for n, p in meta.named_parameters()})


def test_meta_sgd_begins_as_maml_and_learns_its_rates():
    _, maml = learned("maml")
    _, found = learned("meta-sgd")
    rates = {name for name in found if name.startswith("lrs.")}
    assert len(rates) == len(maml)
    # The rates were made in single precision.
    assert_same(maml, {n: g for n, g in found.items() if n not in rates}, 1e-6)


@pytest.mark.parametrize(
    ("method", "init", "plainer"),
    [
        ("warpgrad-frozen", "maml", "maml"),
        ("warpgrad-frozen", "fomaml", "fomaml"),
        ("warpgrad", "fomaml", "fomaml"),
        ("warpgrad", "maml", "maml"),
        ("warpgrad-fo", "fomaml", "fomaml"),
        ("evograd", "fomaml", "fomaml"),
    ],
)
def test_with_identity_warps_initial_weights_learn_as_without(method, init, plainer):
    _, expected = learned(plainer)
    _, found = learned(method, init=init)
    assert_same(expected, {n: g for n, g in found.items() if n in expected})


@pytest.mark.parametrize("init", INITS)
def test_warp_layers_learn_and_frozen_ones_do_not(init):
    for method in ("warpgrad", "warpgrad-fo", "evograd", "warpgrad-frozen"):
        algorithm, _ = learned(method, init=init)
        optimizer = algorithm.optimizer()
        before = copy.deepcopy(algorithm.state_dict())
        optimizer.step()
        warps = [
            f"{name}.{key}"
            for name, layer in algorithm.named_modules()
            if isinstance(layer, WarpLayer2d)
            for key, _ in layer.named_parameters()
        ]
        after = algorithm.state_dict()
        moved = {name for name in after if not torch.equal(before[name], after[name])}
        assert len(warps) == 8
        expected = set() if method == "warpgrad-frozen" else set(warps)
        assert moved & set(warps) == expected
        assert moved - set(warps)  # initial weights learn everywhere


def test_exact_and_first_order_warp_gradients_differ():
    (exact, _), (first, _) = learned("warpgrad"), learned("warpgrad-fo")
    own, other = (warp_layers(a)[0].warp.weight.grad for a in (exact, first))
    assert not torch.allclose(own, other, rtol=0.01)


def test_reptile_points_from_where_the_weights_have_come_to():
    algorithm, found = learned("reptile")
    network, given = tiny_network().double(), doubled(lesson("reptile"))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for x, y in given.inner:
        optimizer.zero_grad()
        functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    for gradient, start, end in zip(
        found.values(), before, network.parameters(), strict=True
    ):
        torch.testing.assert_close(gradient, start - end, rtol=1e-9, atol=1e-12)
    algorithm.optimizer().step()  # the rate is 1: to where the weights have come
    for own, end in zip(algorithm.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(own, end, rtol=1e-9, atol=1e-12)


def test_aruba_begins_as_reptile_and_collects_each_task():
    _, reptile = learned("reptile")
    algorithm, found = learned("aruba")
    assert_same(reptile, found, 1e-6)  # the rates were made in single precision
    assert int(algorithm.meta.tasks) == 1
    rates = torch.cat([rate.flatten() for rate in algorithm.meta.rates()])
    assert len(rates.unique()) > len(rates) / 2


@pytest.mark.parametrize("method", METHODS)
def test_tasks_of_a_batch_add_up(method):
    algorithm, whole = learned(method, 0.5)
    if method.startswith("aruba"):
        return  # its rates change after the first task
    algorithm.begin(3)
    algorithm.learn(doubled(lesson(method)), 0.5)
    found = gradients(algorithm)
    for name, gradient in whole.items():
        torch.testing.assert_close(found[name], 2 * gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_test_changes_nothing_and_begins_before_the_first_step(method):
    algorithm = tiny_algorithm(method)
    before = copy.deepcopy(algorithm.state_dict())
    task = Task(*images(6, 1), *images(9, 2))
    found = accuracies(algorithm, [task, task], 4)
    assert found.shape == (2, 5) and torch.equal(found[0], found[1])
    x, y = images(9, 2)
    network = tiny_network()
    first = (network(x).argmax(1) == y).double().mean()
    assert float(found[0, 0]) == pytest.approx(float(first))
    last = accuracies(algorithm, [task], 4, last_only=True)
    assert last.shape == (1, 1) and last[0, 0] == found[0, 4]
    after = algorithm.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in algorithm.parameters())


def test_at_the_test_all_of_maml_adapts_and_only_the_last_layer_of_anil():
    x, y = images(6, 1)
    for method, adapts in (("maml", True), ("anil", False)):
        algorithm = tiny_algorithm(method)
        learner = algorithm.learner()
        learner.adapt(functional.cross_entropy(learner(x), y))
        if adapts:
            parts = zip(learner.parameters(), algorithm.parameters(), strict=True)
            assert not any(torch.equal(a, b) for a, b in parts if b.norm() > 0)
        else:
            assert learner._body is algorithm.body
            assert not torch.equal(learner._head.weight, algorithm.meta.weight)


def test_aruba_plus_plus_lowers_its_rates_at_the_test():
    rated = tiny_algorithm("aruba++", plus=100.0)
    x, y = images(6, 1)
    learner = rated.learner()
    before = [rate.clone() for rate in learner.lr]
    learner.adapt(functional.cross_entropy(learner(x), y))
    # The rates of biases before batch normalisation stay, up to rounding.
    falls = [
        float((new / old).min()) for new, old in zip(learner.lr, before, strict=True)
    ]
    assert min(falls) < 0.9
