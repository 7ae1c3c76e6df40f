"""A bilevel step in two processes, held against the same step in one."""

import pytest
import torch
from populations import steps
from several_processes import in_processes
from torch import nn

from l2l_evograd import EvoGrad, Exact, Guided, bilevel_step

pytestmark = pytest.mark.usefixtures("float64")

STEPS = 3
METHODS = {
    "evolution": ("evolution", EvoGrad(4, sigma=0.05, temperature=0.5)),
    "evograd": ("gradient", EvoGrad(3, sigma=0.01)),
    "guided": ("gradient", Guided()),
    "guided forward": ("gradient", Guided(scheme="forward")),
    "exact": ("gradient", Exact()),
}


def train(method, base_step, shares, group=None):
    """Return all that three steps on the mean over ``shares`` of the data give."""
    update, estimator = METHODS[method]
    # Processes differ in their own random state; what they share must not.
    torch.manual_seed(shares[0])
    data = torch.Generator().manual_seed(7)
    x, meta = (torch.randn(2, 6, 3, generator=data) for _ in range(2))
    y, meta_y = (torch.randn(2, 6, 2, generator=data) for _ in range(2))
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    start = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=start))
    weights = torch.linspace(-1, 1, 12).view(2, 6).requires_grad_()
    temperature = torch.ones((), requires_grad=True)
    offset = torch.zeros(2, requires_grad=True)  # beside the model's own parameters

    def inner(view):
        errors = [
            (weights[p].sigmoid() * (view(x[p]) + offset - y[p]).square().sum(1)).mean()
            for p in shares
        ]
        return torch.stack(errors).mean()

    def outer(view):
        errors = [(temperature * view(meta[p]) - meta_y[p]).square() for p in shares]
        return torch.stack(errors).mean() + temperature.square()

    base = torch.optim.SGD([*model.parameters(), offset], lr=0.1, momentum=0.9)
    hyper = torch.optim.Adam([weights, temperature], lr=0.1)
    generator = torch.Generator().manual_seed(9 + shares[0])
    found = steps(
        STEPS,
        *(model, inner, outer, base, hyper),
        update=update,
        estimator=estimator,
        base_step=base_step,
        generator=generator,
        process_group=group,
        allow_unused=True,
    )
    return [*found, *model.parameters(), offset, weights, temperature]


def train_its_share(method, base_step, rank, group):
    return [t.detach() for t in train(method, base_step, [rank], group)]


@pytest.mark.parametrize("base_step", ["after", "before"])
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_make_the_step_of_one(tmp_path, method, base_step):
    expected = train(method, base_step, [0, 1])
    for found in in_processes(tmp_path, 2, train_its_share, method, base_step):
        for own, one in zip(found, expected, strict=True):
            torch.testing.assert_close(own, one.detach(), rtol=1e-9, atol=1e-12)


def test_what_is_no_group_is_refused():
    model, weight = nn.Linear(1, 1), torch.ones((), requires_grad=True)
    optimizers = [torch.optim.SGD(p, lr=0.1) for p in (model.parameters(), [weight])]
    with pytest.raises(TypeError, match=r"process_group.*got str; use torch.distrib"):
        bilevel_step(
            model,
            lambda view: weight * view(torch.ones(1)).square().sum(),
            lambda view: view(torch.ones(1)).sum(),
            *optimizers,
            process_group="gloo",
        )
