"""What a body has moved is put back if it raises an error."""

import pytest
import torch
from torch import nn

from l2l_evograd.undo import Undo, kept_grads, or_nothing, unchanged


class Broken(Exception):
    pass


def optimizers(parameters):
    return [
        torch.optim.SGD(parameters, lr=torch.tensor(0.1), momentum=0.9),
        torch.optim.Adam(parameters, lr=0.1, amsgrad=True),
        torch.optim.Rprop(parameters),
        torch.optim.LBFGS(parameters, max_iter=2),
    ]


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("steps", [0, 2])
def test_weights_and_the_state_of_an_optimizer_are_put_back(number, steps):
    model = nn.Sequential(nn.Linear(3, 4).double(), nn.Linear(4, 2))
    parameters = list(model.parameters())
    optimizer = optimizers(parameters)[number]
    assert len({p.dtype for p in parameters}) == 2

    def closure():
        for place, parameter in enumerate(parameters):
            parameter.grad = torch.full_like(parameter, 0.1 * (place + 1))
        return torch.zeros(())

    def step():
        optimizer.step(closure)

    for _ in range(steps):
        step()
    grads = [parameter.grad for parameter in parameters]
    values = [parameter.detach().clone() for parameter in parameters]
    expected = [values]
    with pytest.raises(Broken), Undo() as undo:
        undo.keep(parameters, optimizer)
        step()
        expected.append([parameter.detach().clone() for parameter in parameters])
        optimizer.param_groups[0]["lr"] = 3.0
        raise Broken
    assert all(map(torch.equal, parameters, values))
    assert [p.grad for p in parameters] == grads or steps
    step()  # from the same state, the same step
    assert all(map(torch.equal, parameters, expected[1]))


def test_buffers_and_random_states_are_put_back():
    model, generator = nn.BatchNorm1d(2), torch.Generator().manual_seed(1)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    states = torch.get_rng_state(), generator.get_state()
    with pytest.raises(Broken), Undo(model, generator=generator):
        model(torch.randn(3, 2))
        torch.rand(2, generator=generator)
        raise Broken
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.equal(generator.get_state(), states[1])

    @or_nothing
    def failing():
        torch.rand(2)
        raise Broken

    with pytest.raises(Broken):
        failing()
    assert torch.equal(torch.get_rng_state(), states[0])


def test_nothing_is_put_back_without_an_error():
    model = nn.BatchNorm1d(2)
    with Undo(model) as undo:
        undo.keep(list(model.parameters()))
        model(torch.randn(3, 2))
        torch.nn.init.zeros_(model.weight)
    assert model.num_batches_tracked == 1
    assert not model.weight.any()


def test_writes_are_noticed_bit_by_bit():
    tensors = [torch.tensor([0.0, float("nan")]), torch.arange(3)]
    with unchanged(tensors, "the loss"):
        pass  # NaN is not a change
    with pytest.raises(RuntimeError, match="the loss changed weights"):
        with unchanged(tensors, "the loss"):
            tensors[0].data[0] = -0.0
    assert not torch.signbit(tensors[0][0])
    with unchanged(tensors, "the loss", on=False):
        tensors[1][0] = 5
    assert tensors[1][0] == 5


def test_retained_grads_are_left_alone():
    leaf = torch.ones(2, requires_grad=True)
    retaining = leaf * 1
    retaining.retain_grad()
    with kept_grads([leaf, retaining]):
        torch.autograd.grad(retaining.sum(), retaining)
    assert retaining.grad is None
