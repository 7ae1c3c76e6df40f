import pytest
import torch
from regression import Regression
from torch import nn

from l2l_evograd.experiments.precision import LossScale
from l2l_evograd.experiments.training_module import (
    Numbered,
    TrainingModule,
    parameters_of,
)


def optimizer() -> torch.optim.Optimizer:
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.fill_(1.0)
    return torch.optim.SGD(model.parameters(), lr=0.5)


def test_a_step_follows_the_gradients_that_it_is_given():
    own = optimizer()
    weight, bias = parameters_of(own)
    TrainingModule().step(own, [torch.tensor([[2.0, 4.0]]), None])
    assert weight.tolist() == [[0.0, -1.0]] and bias.tolist() == [1.0]
    assert bias.grad is None


def test_in_float16_gradients_are_divided_by_the_scale():
    module, own = TrainingModule("fp16"), optimizer()
    module.scale = LossScale()
    loss = torch.tensor(3.0)
    assert module.scaled(loss) == 3.0 * 1024
    assert module.unscaled(module.scaled(loss)) == 3.0
    gradients = [torch.tensor([[2.0, 4.0]]) * 1024, torch.tensor([0.0])]
    module.step(own, gradients)
    assert parameters_of(own)[0].tolist() == [[0.0, -1.0]]


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_in_float16_a_gradient_that_is_not_finite_leaves_the_step_out(bad):
    module, own = TrainingModule("fp16"), optimizer()
    module.scale = LossScale()
    module.step(own, [torch.tensor([[2.0, bad]]), torch.tensor([1.0])])
    weight, bias = parameters_of(own)
    assert weight.tolist() == [[1.0, 1.0]] and bias.tolist() == [1.0]


def test_outputs_are_float32_whatever_the_precision():
    module = TrainingModule("bf16")
    exact, x = nn.Linear(300, 4), torch.randn(5, 300)
    outputs = module.outputs(exact, x)
    assert outputs.dtype == torch.float32
    assert not torch.equal(outputs, exact(x))
    assert torch.allclose(outputs, exact(x), atol=0.1)


def test_the_loader_has_the_numbers_up_to_the_next_checkpoint():
    module = Regression()
    assert list(module.train_dataloader()) == [0, 1] and module.blocks == 4
    module.losses = [0.0] * 6
    loader = module.train_dataloader()
    assert (list(loader), len(loader)) == ([6], 1)
    numbers = Numbered(3, 5)
    assert list(numbers) == list(numbers) == [3, 4]
