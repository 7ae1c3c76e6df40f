from typing import Any

import pytest
import torch
from counted import Counted
from small_tasks import SIDE, lesson, tiny_algorithm, tiny_network, tiny_settings
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from l2l_evograd.experiments.fewshot.making import make_algorithm
from l2l_evograd.experiments.fewshot.methods import METHODS, Sizes, gradients_per_task
from l2l_evograd.experiments.fewshot.settings import INITS

SUPPORT, QUERY, BATCH, STEPS = 3, 7, 4, 3
CASES = [(name, "fomaml") for name in METHODS if name != "evograd"]
CASES += [
    (name, init)
    for name in ("warpgrad", "warpgrad-fo", "warpgrad-frozen")
    for init in INITS
    if init != "fomaml"
]


def stated(method: str, init: str = "fomaml") -> int:
    sizes = Sizes(SUPPORT, QUERY, BATCH, STEPS, init)
    return gradients_per_task(METHODS[method], sizes)


@pytest.mark.parametrize(("method", "init"), CASES)
def test_the_stated_cost_is_what_a_counter_in_the_network_sees(method, init):
    network, counter = tiny_network(), Counted()
    network.body = nn.Sequential(*network.body, counter)
    settings = tiny_settings(init=init)
    algorithm = make_algorithm(METHODS[method], network, settings)
    given = lesson(method, SUPPORT, QUERY, BATCH, STEPS)
    algorithm.learn(given, 1.0)
    assert counter.gradients == stated(method, init)


class Convolutions(TorchDispatchMode):
    """Counts images in convolutions of the features of the first block.

    EvoGrad's perturbed models are replayed, without calls of the modules.
    """

    def __init__(self) -> None:
        super().__init__()
        self.forward = self.backward = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = str(function)
        if name == "aten.convolution.default" and args[0].shape[-1] == SIDE // 2:
            self.forward += len(args[0]) * args[8]  # groups, one for each model
        if name == "aten.convolution_backward.default":
            if args[1].shape[-1] == SIDE // 2:
                self.backward += len(args[1]) * args[9]
        return function(*args, **(kwargs or {}))


def test_the_stated_cost_of_evograd_is_that_of_its_convolutions():
    algorithm = tiny_algorithm("evograd")
    given = lesson("evograd", SUPPORT, QUERY, BATCH, STEPS)
    with Convolutions() as counts:
        algorithm.learn(given, 1.0)
    # Two convolutions read these features: the warp layer, and the second block.
    assert counts.forward == counts.backward == 2 * stated("evograd")


def test_costs_in_numbers():
    assert [stated(m) for m in ("maml", "fomaml", "anil", "reptile")] == [
        34,
        16,
        10,
        12,
    ]
    assert stated("warpgrad") - stated("warpgrad-fo") == 2 * STEPS * SUPPORT
    assert stated("aruba") == stated("aruba++")
    settings = tiny_settings(methods=("maml",))
    assert settings.gradients_per_iteration(METHODS["maml"]) == 2 * (2 * 9 * 3 + 9)


def test_controls_are_methods():
    for method in METHODS.values():
        assert method.control is None or method.control in METHODS
        assert METHODS[method.training].training == method.training
    assert torch.is_grad_enabled()
