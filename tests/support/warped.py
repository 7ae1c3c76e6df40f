"""Small warped models, and WarpGrad's objective written out with autograd."""

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F


class Quadratic(nn.Module):
    """γ = Wθ, with θ the task parameters and W the warp."""

    def __init__(self, size=4):
        super().__init__()
        self.theta = nn.Parameter(torch.randn(size))
        self.warp = nn.Parameter(torch.eye(size) + 0.3 * torch.randn(size, size))

    def forward(self):
        return self.warp @ self.theta


class Warped(nn.Module):
    """Two task layers with a non-linear warp layer after each."""

    def __init__(self, width=5):
        super().__init__()
        self.first = nn.Linear(4, width)
        self.warp1 = nn.Sequential(nn.Linear(width, width), nn.Tanh())
        self.second = nn.Linear(width, width)
        self.warp2 = nn.Sequential(nn.Linear(width, width), nn.Tanh())
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.warp2(self.second(self.warp1(self.first(x)).tanh())))


WARPS = ("warp1", "warp2")


def is_warp(name):
    return name.startswith(WARPS)


def batches(steps, n=6):
    """Return a support and a query batch for every step."""

    def batch():
        return torch.randn(n, 4), torch.randint(3, (n,))

    return [(batch(), batch()) for _ in range(steps)]


def split(model):
    """Return detached copies of θ and of φ, by name."""
    named = {n: p.detach().clone() for n, p in model.named_parameters()}
    theta = {n: p.requires_grad_() for n, p in named.items() if not is_warp(n)}
    phi = {n: p.requires_grad_() for n, p in named.items() if is_warp(n)}
    return theta, phi


def loss_at(model, theta, phi, batch):
    x, y = batch
    return F.cross_entropy(functional_call(model, {**theta, **phi}, (x,)), y)


def step(model, theta, phi, batch, lr, create_graph):
    loss = loss_at(model, theta, phi, batch)
    grads = torch.autograd.grad(loss, list(theta.values()), create_graph=create_graph)
    pairs = zip(theta.items(), grads, strict=True)
    return {name: value - lr * grad for (name, value), grad in pairs}


def constant(theta):
    return {name: value.detach().requires_grad_() for name, value in theta.items()}


def objective(model, steps, lr, first_order):
    """Return the meta-objective's gradient for φ: equation 11, or 12, line by line."""
    theta, phi = split(model)
    total = 0
    for support, query in steps:
        after = step(model, theta, phi, support, lr, create_graph=True)
        point = constant(after) if first_order else after
        total = total + loss_at(model, point, phi, query)
        theta = constant(after)
    return dict(zip(phi, torch.autograd.grad(total, phi.values()), strict=True))
