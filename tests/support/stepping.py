"""Inner steps as an update makes them, and written out on one graph.

The problem is a small network with weights θ, sample weights λ and a body outside of
it. It is smooth, and ∂ℓ/∂λ need not be: ``linear`` makes ℓ quadratic in θ, so that a
central difference is exact.
"""

import torch
from torch import nn
from torch.func import functional_call

from l2l_evograd.replay.tensor import Recording
from l2l_evograd.updates.adjoint import Gate
from l2l_evograd.updates.inner_step import inner_step
from l2l_evograd.updates.situation import Situation

LR = 0.3


class Problem:
    def __init__(self, linear=False):
        torch.manual_seed(0)
        middle = nn.Identity() if linear else nn.Tanh()
        self.model = nn.Sequential(nn.Linear(4, 5), middle, nn.Linear(5, 2))
        if linear:
            self.model = nn.Sequential(nn.Linear(4, 2))
        self.body = nn.Linear(3, 4)
        self.lam = torch.randn(6, requires_grad=True)
        self.x, self.xq = torch.randn(2, 6, 3)
        self.y, self.yq = torch.randn(2, 6, 2)
        self.names = [name for name, _ in self.model.named_parameters()]
        self.params = list(self.model.parameters())

    def targets(self):
        return [self.lam, *self.params, *self.body.parameters()]

    def predict(self, params, features):
        return functional_call(
            self.model, dict(zip(self.names, params, strict=True)), (features,)
        )

    def inner(self, params, features, lam):
        errors = (self.predict(params, features) - self.y).square().sum(1)
        return (torch.sigmoid(lam) * errors).mean()

    def outer(self, params):
        return (self.predict(params, self.body(self.xq)) - self.yq).square().mean()


def stepped(problem, update, steps=2, **settings):
    """Return dL/d of the targets after steps of an update, and the last step."""
    params, gate = problem.params, Gate()
    for _ in range(steps):
        with Recording() as record_of_it:
            features = problem.body(problem.x)
            value = problem.inner(params, features, problem.lam)
        assert record_of_it.on
        result = inner_step(
            update,
            Situation(
                value=value,
                params=list(params),
                names=lambda: problem.names,
                **{"lr": LR, "check": True, "gate": gate, **settings},
            ),
        )
        params = result.params
    grads = torch.autograd.grad(
        problem.outer(params), problem.targets(), allow_unused=True, retain_graph=True
    )
    return _filled(grads, problem.targets()), params, result


def written_out(problem, steps=2, named=True, first_order=False):
    """Return the same on one graph; λ counts as any outside tensor unless ``named``."""
    params = problem.params
    for _ in range(steps):
        at, lam = params, problem.lam
        features = problem.body(problem.x)
        if first_order:
            at = [p.detach().requires_grad_() for p in params]
            features = features.detach()
            lam = lam if named else lam.detach()
        value = problem.inner(at, features, lam)
        slopes = torch.autograd.grad(value, at, create_graph=True)
        params = [p - LR * g for p, g in zip(params, slopes, strict=True)]
    grads = torch.autograd.grad(
        problem.outer(params), problem.targets(), allow_unused=True
    )
    return _filled(grads, problem.targets()), params


def _filled(grads, targets):
    pairs = zip(grads, targets, strict=True)
    return [torch.zeros_like(t) if g is None else g for g, t in pairs]
