"""torch.compile inside and around a model."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from l2l_evograd import EvoGradMetaOptimizer


def block(x, weight, bias):
    return torch.tanh(F.linear(x, weight, bias)).sin()


class Net(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.first, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
        self.function = function

    def forward(self, x):
        return self.head(self.function(x, self.first.weight, self.first.bias))


def gradients(model, **settings):
    torch.manual_seed(0)
    x, y = torch.randn(7, 4), torch.arange(7) % 3
    learner = EvoGradMetaOptimizer(model, 0.1, **settings).clone()
    for _ in range(2):
        learner.adapt(F.cross_entropy(learner(x), y))
    F.cross_entropy(learner(x), y).backward()
    return [p.grad for p in model.parameters()]


@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.filterwarnings("ignore")  # of the compiler's own
def test_functions_that_are_compiled_work_inside_a_model(first_order):
    # aot_eager: all of the compiler but the generated code, which takes long to make.
    model = Net(torch.compile(block, backend="aot_eager"))
    twin = Net(block)
    twin.load_state_dict(model.state_dict())
    found = gradients(model, first_order=first_order)
    expected = gradients(twin, first_order=first_order)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_what_torch_compile_returned_for_a_module_is_refused_at_once():
    for model in (
        torch.compile(Net(block), backend="eager"),
        nn.Sequential(torch.compile(nn.Linear(4, 3), backend="eager")),
    ):
        with pytest.raises(TypeError, match=r"torch\.compile\(module\).*compile func"):
            EvoGradMetaOptimizer(model, 0.1)


def test_a_module_compiled_in_place_is_warned_of():
    model = Net(block)
    model.first._compiled_call_impl = pytest.fail  # where module.compile() puts it
    with pytest.warns(UserWarning, match="without the effect of module.compile"):
        EvoGradMetaOptimizer(model, 0.1)
