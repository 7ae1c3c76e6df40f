"""A problem over dicts of weights, its estimates, and the unrolled answer."""

import torch
from torch import nn

from l2l_evograd import hypergradient


def problem(dtype=torch.float64, activation=nn.Softplus, seed=0):
    """λ = weights of ten samples of a small network with a smooth activation."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    shapes = {"w1": (4, 8), "b1": (8,), "w2": (8, 3)}
    theta = {name: normal(*shape) for name, shape in shapes.items()}
    lam = normal(10)
    x, xv = normal(10, 4), normal(12, 4)
    y, yv = normal(10, 3), normal(12, 3)
    act = activation()

    def predict(params, inputs):
        return act(inputs @ params["w1"] + params["b1"]) @ params["w2"]

    def inner(params, lam):
        errors = ((predict(params, x) - y) ** 2).mean(-1)
        return (torch.sigmoid(lam) * errors).mean()

    def outer(params, lam):
        return ((predict(params, xv) - yv) ** 2).mean()

    return inner, outer, theta, lam


def estimate(parts, estimator, lr=0.1, **kwargs):
    return hypergradient(*parts, lr=lr, estimator=estimator, **kwargs).gradients


def by_hand(parts, lr, steps):
    inner, outer, theta, lam = parts
    params = {name: t.detach().requires_grad_() for name, t in theta.items()}
    lam = lam.detach().requires_grad_()
    for _ in range(steps):
        grads = torch.autograd.grad(
            inner(params, lam), list(params.values()), create_graph=True
        )
        params = {
            name: t - lr * g for (name, t), g in zip(params.items(), grads, strict=True)
        }
    return torch.autograd.grad(outer(params, lam), lam)[0]
