"""Meta-Weight-Net's problem, and its steps written out."""

import torch
from classifiers import batch
from torch import nn
from torch.nn import functional as F


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3)
    )


X, Y = (t.double() if t.is_floating_point() else t for t in batch(1))
XQ, YQ = (t.double() if t.is_floating_point() else t for t in batch(2))


def weighted(weight_net):
    """Meta-Weight-Net's inner loss: weights from the detached losses."""

    def inner(net):
        losses = F.cross_entropy(net(X), Y, reduction="none")
        weights = weight_net(losses.detach()[:, None])[:, 0]
        return (weights * losses).mean()

    return inner


def weight_net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(1, 6), nn.ReLU(), nn.Linear(6, 1), nn.Sigmoid())


def outer(net):
    return F.cross_entropy(net(XQ), YQ)


def by_hand(model, hyper, inner, seed, lr=0.1):
    """One meta step of Meta-Weight-Net as its paper writes it (equations 5 to 7)."""
    params = {n: p.detach().clone().requires_grad_() for n, p in network_of(model)}
    buffers = {n: b.clone() for n, b in model.named_buffers()}

    def call(values):
        state = {n: b.clone() for n, b in buffers.items()}
        return lambda x: torch.func.functional_call(model, (values, state), (x,))

    torch.manual_seed(seed)
    value = inner(call(params))
    slopes = torch.autograd.grad(value, list(params.values()), create_graph=True)
    moved = {n: p - lr * g for (n, p), g in zip(params.items(), slopes, strict=True)}
    state = {n: b.clone() for n, b in buffers.items()}
    # The outer loss sees the statistics that the inner pass left.
    random_state = torch.get_rng_state()
    torch.manual_seed(seed)
    torch.func.functional_call(model, (params, state), (X,))
    torch.set_rng_state(random_state)
    query = outer(lambda x: torch.func.functional_call(model, (moved, state), (x,)))
    grads = torch.autograd.grad(query, list(hyper), allow_unused=True)
    return value.detach(), query.detach(), grads, slopes


def network_of(model):
    return list(model.named_parameters())


class Opaque(torch.autograd.Function):
    """The identity, hidden from everything that follows tensors."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad


def step_by_hand(model, lam, where, base_step):
    hyper = weight_net()
    if where in ("behind", "called again"):
        for p, q in zip(hyper.parameters(), lam, strict=True):
            p.requires_grad_(False)
            del p, q

    def inner(net):
        losses = F.cross_entropy(net(X), Y, reduction="none")
        if where == "inside":
            return losses.mean()
        if where == "computed":
            return (torch.sigmoid(lam[0]) * losses).mean()
        named = dict(zip([n for n, _ in hyper.named_parameters()], lam, strict=True))
        given = losses.detach()[:, None]
        weights = torch.func.functional_call(hyper, named, (given,))[:, 0]
        return (weights * losses).mean()

    names = [n for n, p in model.named_parameters() if all(p is not q for q in lam)]
    params = dict(model.named_parameters())
    fixed = {n: p for n, p in params.items() if n not in names}
    buffers = {n: b.clone() for n, b in model.named_buffers()}

    def net(values, state):
        everything = ({**fixed, **values}, state)
        return lambda x: torch.func.functional_call(model, everything, (x,))

    def copied(state):
        return {n: b.clone() for n, b in state.items()}

    torch.manual_seed(3)
    state = copied(buffers)
    values = {n: params[n] for n in names}
    value = inner(net(values, state))
    slopes = torch.autograd.grad(value, list(values.values()), create_graph=True)
    moved = {n: values[n] - 0.1 * g for n, g in zip(names, slopes, strict=True)}
    query = outer(net(moved, copied(state)))
    grads = torch.autograd.grad(query, lam)
    end = torch.get_rng_state()
    with torch.no_grad():
        for p, g in zip(lam, grads, strict=True):
            p -= 5.0 * g
    if base_step == "after":
        torch.manual_seed(3)
        again = inner(net(values, copied(buffers)))
        slopes = torch.autograd.grad(again, list(values.values()))
    with torch.no_grad():
        for n, g in zip(names, slopes, strict=True):
            params[n] -= 0.1 * g.detach()
        for n, b in model.named_buffers():
            b.copy_(state[n])
    torch.set_rng_state(end)
    return value, query, grads
