"""A bilevel step in two processes, held against the same step in one."""

import multiprocessing
import os

import pytest
import torch
from torch import distributed, nn

from l2l_evograd import EvoGrad, Exact, Guided, bilevel_step
from l2l_evograd.processes import Processes

pytestmark = pytest.mark.usefixtures("float64")

STEPS = 3
METHODS = {
    "evolution": ("evolution", EvoGrad(4, sigma=0.05, temperature=0.5)),
    "evograd": ("gradient", EvoGrad(3, sigma=0.01)),
    "guided": ("gradient", Guided()),
    "guided forward": ("gradient", Guided(scheme="forward")),
    "exact": ("gradient", Exact()),
}


def train(method: str, base_step: str, shares: list[int], group=None):
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
    found = []
    for _ in range(STEPS):
        step = bilevel_step(
            model,
            inner,
            outer,
            base,
            hyper,
            update=update,
            estimator=estimator,
            base_step=base_step,
            generator=generator,
            process_group=group,
            allow_unused=True,
        )
        found += [step.inner_loss, step.outer_loss, *step.hypergradient]
    return [*found, *model.parameters(), offset, weights, temperature]


def in_two_processes(folder, function, *arguments):
    """Return what ``function(*arguments, [rank], group)`` gives in each of two."""
    context = multiprocessing.get_context("fork")
    options = (folder, function, arguments)
    members = [context.Process(target=member, args=(r, *options)) for r in range(2)]
    for process in members:
        process.start()
    for process in members:
        process.join(120)
    assert [process.exitcode for process in members] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def member(rank, folder, function, arguments):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2
    )
    found = function(*arguments, [rank], distributed.group.WORLD)
    torch.save([tensor.detach() for tensor in found], folder / f"{rank}.pt")
    distributed.destroy_process_group()
    os._exit(0)  # pytest's own clean-up is the parent's


@pytest.mark.parametrize("base_step", ["after", "before"])
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_make_the_step_of_one(tmp_path, method, base_step):
    expected = train(method, base_step, [0, 1])
    for found in in_two_processes(tmp_path, train, method, base_step):
        for own, one in zip(found, expected, strict=True):
            torch.testing.assert_close(own, one.detach(), rtol=1e-9, atol=1e-12)


def means(shares, group):
    rank = shares[0]
    single = torch.full((2, 2), float(rank), dtype=torch.float32)
    processes = Processes(group)
    found = processes.mean([torch.tensor([rank, 3.0]), None, single, single.sum()])
    assert found[1] is None
    seed = processes.common(5 + rank, torch.device("cpu"))
    return [found[0], found[2], found[3], torch.tensor(seed)]


def test_means_keep_shapes_dtypes_and_what_is_not_there(tmp_path):
    for pair, matrix, total, seed in in_two_processes(tmp_path, means):
        assert pair.tolist() == [0.5, 3.0] and pair.dtype == torch.float64
        assert torch.equal(matrix, torch.full((2, 2), 0.5, dtype=torch.float32))
        assert float(total) == 2.0 and int(seed) == 5


def test_one_process_is_left_as_it_is():
    tensors = [torch.ones(2), None]
    found = Processes().mean(tensors)
    assert found[0] is tensors[0] and found[1] is None
    assert Processes().common(3, torch.device("cpu")) == 3


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
