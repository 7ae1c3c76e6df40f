"""Small training runs, and their hypergradients written out in the simplest way."""

from functools import partial

import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.randint(3, (40,), generator=torch.Generator().manual_seed(1))


def weights():
    """A perceptron 4-5-3."""
    rng = torch.Generator().manual_seed(2)
    shapes = {"a": (5, 4), "b": (5,), "c": (3, 5)}
    return {
        name: torch.randn(shape, generator=rng, dtype=torch.float64) * 0.5
        for name, shape in shapes.items()
    }


def logits(params, x):
    return torch.tanh(x @ params["a"].T + params["b"]) @ params["c"].T


def inner(params, lam, batch):
    losses = F.cross_entropy(logits(params, X[batch]), Y[batch], reduction="none")
    if lam is None:
        return losses.mean()
    decay = sum(
        r.exp() * p.square().sum()
        for r, p in zip(lam["l2"], params.values(), strict=True)
    )
    return (losses * lam["example"][batch].exp()).mean() + decay


def outer(params, lam):
    loss = F.cross_entropy(logits(params, X), Y)
    return loss if lam is None else loss + 0.1 * lam["l2"].square().mean()


def losses(steps):
    rng = torch.Generator().manual_seed(3)
    return [
        partial(inner, batch=torch.randint(40, (8,), generator=rng))
        for _ in range(steps)
    ]


def lambdas():
    rng = torch.Generator().manual_seed(4)
    return {
        "l2": torch.tensor([-4.0, -3.0, -5.0], dtype=torch.float64),
        "example": torch.randn(40, generator=rng, dtype=torch.float64) * 0.1,
    }


def by_autograd(
    steps,
    lam=None,
    scale=None,
    *,
    lr,
    momentum,
    weight_decay,
    clip=None,
    dampening=False,
):
    """Differentiate the run with per-step values, one number for all weights each.

    Returns the gradients of lr, momentum, weight_decay, λ and s, those of numbers 0.
    """
    leaves = [t.clone().requires_grad_() for t in (lr, momentum, weight_decay)]
    lam = lam and {k: t.clone().requires_grad_() for k, t in lam.items()}
    s = (torch.zeros(()) if scale is None else scale).double().requires_grad_()
    params = {name: w * s.exp() for name, w in weights().items()}
    velocity = {name: torch.zeros_like(w) for name, w in params.items()}
    for t, loss in enumerate(losses(steps)):
        value = loss(params, lam)
        grads = torch.autograd.grad(value, list(params.values()), create_graph=True)
        a, b, x = (leaf[t] for leaf in leaves)
        for (name, w), g in zip(list(params.items()), grads, strict=True):
            if clip is not None:
                g = torch.where(g.abs() <= clip, g, clip * g.detach().sign())
            push = g + x * w
            velocity[name] = b * velocity[name] + (1 - b if dampening else 1) * push
            params[name] = w - a * velocity[name]
    wanted = [*leaves, s, *(lam or {}).values()]
    found = torch.autograd.grad(outer(params, lam), wanted)
    names = ["lr", "momentum", "weight_decay", "scale", *(lam or {})]
    return dict(zip(names, found, strict=True))


def flat(result):
    """All gradients of a result in one vector."""
    inside = result.gradients
    inside = inside.values() if isinstance(inside, dict) else inside or []
    found = [*inside, *result.schedule.values(), *result.init.values()]
    return torch.cat([tensor.flatten().double() for tensor in found])


def distance(result, truth):
    """Return the relative distance between the gradients of two results."""
    a, b = flat(result), flat(truth)
    return float((a - b).norm() / b.norm())


def peak_bytes(call):
    """Return how much more memory a call has allocated at one time than at its start.

    The allocator's own count, so it is exact and the same each time.
    """
    call()  # what is only made once is made now
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        call()
    events = prof.profiler.kineto_results.events()
    changes = sorted(
        (event.start_ns(), number, event.nbytes())
        for number, event in enumerate(events)
        if event.name() == "[memory]"
    )
    used = peak = 0
    for _, _, change in changes:
        used += change
        peak = max(peak, used)
    return peak
