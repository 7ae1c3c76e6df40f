"""Greedy hypergradients: sums of one-step ones, and what they miss."""

import pytest
import torch
from training_runs import lambdas, losses, outer, weights

from l2l_evograd.unroll import greedy, unrolled_sgd

pytestmark = pytest.mark.usefixtures("float64")


def test_it_is_the_sum_over_steps_that_look_one_ahead():
    steps = 12
    rates, beta = torch.tensor([0.3, 0.2, 0.1]), torch.tensor([0.5, 0.8])
    decay, scale = torch.tensor(0.01), torch.tensor(0.2)
    lam = {k: t.clone().requires_grad_() for k, t in lambdas().items()}
    leaves = [t.clone().requires_grad_() for t in (rates, beta, decay, scale)]
    a, b, x, s = leaves
    params = {name: w * s.exp() for name, w in weights().items()}
    velocity = {name: torch.zeros_like(w) for name, w in params.items()}
    total = [torch.zeros_like(t) for t in (*leaves, *lam.values())]
    for t, loss in enumerate(losses(steps)):
        if t:  # constants, from here on
            params = {n: w.detach().requires_grad_() for n, w in params.items()}
            velocity = {n: v.detach() for n, v in velocity.items()}
        grads = torch.autograd.grad(
            loss(params, lam), list(params.values()), create_graph=True
        )
        new = {}
        for (n, w), g in zip(params.items(), grads, strict=True):
            velocity[n] = b[t * 2 // steps] * velocity[n] + g + x * w
            new[n] = w - a[t * 3 // steps] * velocity[n]
        params = new
        found = torch.autograd.grad(
            outer(params, lam), [*leaves, *lam.values()], allow_unused=True
        )
        for place, grad in enumerate(found):
            if grad is not None:
                total[place] += grad
    got = greedy(
        losses(steps),
        outer,
        weights(),
        lambdas(),
        lr=rates,
        momentum=beta,
        weight_decay=decay,
        init={"scale": scale},
        steps=steps,
    )
    found = [*got.schedule.values(), *got.init.values(), *got.gradients.values()]
    for mine, expected in zip(found, total, strict=True):
        assert torch.allclose(mine, expected, rtol=1e-10, atol=1e-13)


def test_it_overrates_the_first_steps():
    given = {"lr": torch.full((60,), 0.3), "momentum": 0.5, "steps": 60}
    far = unrolled_sgd(losses(60), outer, weights(), **given).schedule["lr"]
    near = greedy(losses(60), outer, weights(), **given).schedule["lr"]
    assert torch.allclose(near[-1], far[-1])
    assert near[:5].abs().mean() > 2 * far[:5].abs().mean()
