import torch
from torch import nn

from l2l_evograd.runs.accumulation import Held, step_from_mean


def test_a_held_optimizer_takes_no_step():
    layer = nn.Linear(2, 1)
    before = [p.detach().clone() for p in layer.parameters()]
    held = Held(torch.optim.SGD(layer.parameters(), lr=1.0))
    layer(torch.ones(3, 2)).sum().backward()
    held.step()
    assert all(map(torch.equal, layer.parameters(), before))


def test_every_optimizer_takes_the_step_of_the_mean():
    torch.manual_seed(0)
    first, second = (nn.Linear(2, 1).double() for _ in range(2))
    unused = nn.Parameter(torch.ones(1))
    optimizers = [
        torch.optim.SGD([*first.parameters(), unused], lr=0.1),
        torch.optim.SGD(second.parameters(), lr=0.01),
    ]
    before = [p.detach().clone() for p in (*first.parameters(), *second.parameters())]
    data = torch.randn(3, 4, 2, dtype=torch.float64)

    def call(batch, own):
        for optimizer in own:
            optimizer.zero_grad()
        (first(batch).square().mean() + second(batch).square().mean()).backward()
        for optimizer in own:
            optimizer.step()

    step_from_mean(optimizers, [lambda own, x=x: call(x, own) for x in data])
    after = [p.detach().clone() for p in (*first.parameters(), *second.parameters())]
    for parameter, value in zip(
        (*first.parameters(), *second.parameters()), before, strict=True
    ):
        parameter.data.copy_(value)
    loss = sum(first(x).square().mean() + second(x).square().mean() for x in data) / 3
    found = torch.autograd.grad(loss, [*first.parameters(), *second.parameters()])
    for position, (old, slope) in enumerate(zip(before, found, strict=True)):
        rate = 0.1 if position < 2 else 0.01
        torch.testing.assert_close(
            after[position], old - rate * slope, rtol=1e-12, atol=1e-14
        )
    assert unused.grad is None and unused.tolist() == [1.0]
