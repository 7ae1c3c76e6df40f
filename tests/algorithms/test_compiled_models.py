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


def gradients(model, named=False, **settings):
    torch.manual_seed(0)
    x, y = torch.randn(7, 4), torch.arange(7) % 3
    lam = torch.zeros(7, requires_grad=True)
    if named:
        settings["hyperparameters"] = lam
    generator = torch.Generator().manual_seed(1)
    meta = EvoGradMetaOptimizer(
        model, 0.1, check="always", generator=generator, **settings
    )
    learner = meta.clone()
    for _ in range(2):
        losses = F.cross_entropy(learner(x), y, reduction="none")
        learner.adapt((lam.exp() * losses).mean())
    F.cross_entropy(learner(x), y).backward()
    return [lam.grad, *(p.grad for p in model.parameters())]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"first_order": True},
        {"memory": "recompute"},
        {"named": True, "estimator": "guided"},
        {"named": True, "estimator": "evograd"},
        {"named": True, "estimator": "exact"},
        {"named": True, "estimator": "exact", "memory": "recompute"},
        {"named": True, "update": "evolution"},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore")  # of the compiler's own
def test_functions_that_are_compiled_work_inside_a_model(settings):
    # aot_eager: all of the compiler but the generated code, which takes long to make.
    model = Net(torch.compile(block, backend="aot_eager"))
    twin = Net(block)
    twin.load_state_dict(model.state_dict())
    found, expected = gradients(model, **settings), gradients(twin, **settings)
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
