"""MAML written out: inner steps on the autograd graph, differentiated by autograd.

The reference for what a learner's meta-gradients should be. Nothing here shares code
with the package.
"""

import copy

import torch
from right_norm import RightNorm
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


class ByHand(nn.Module):
    """What ``EvoGradMetaOptimizer`` looks like, with everything on one graph."""

    def __init__(self, module, lr, first_order=False):
        super().__init__()
        self.module, self.lr, self.first_order = module, lr, first_order

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.module, name)

    def forward(self, *args, **kwargs):
        with sdpa_kernel(SDPBackend.MATH), RightNorm():
            return self.module(*args, **kwargs)

    def clone(self):
        memo = {}
        for child in self.module.modules():
            # Weights that a hook computed, as the old weight_norm does.
            memo.update({id(v): v for v in vars(child).values() if torch.is_tensor(v)})
        for param in self.module.parameters():
            memo[id(param)] = param.clone() if param.requires_grad else param
        module = copy.deepcopy(self.module, memo)
        return ByHand(module, self.lr, self.first_order)

    def adapt(self, loss):
        if not torch.is_tensor(loss):
            loss = loss(self)
        params = [p for p in self.module.parameters() if p.requires_grad]
        second_order = not self.first_order
        grads = torch.autograd.grad(
            loss,
            params,
            create_graph=second_order,
            retain_graph=second_order,
            allow_unused=True,
        )
        moved = {
            id(p): p if g is None else p - self.lr * g
            for p, g in zip(params, grads, strict=True)
        }
        for child in self.module.modules():
            for key, param in child._parameters.items():
                child._parameters[key] = moved.get(id(param), param)
            if isinstance(child, nn.RNNBase):
                names = child._flat_weights_names
                child._flat_weights = [getattr(child, name) for name in names]


def meta_gradients(algorithm, run, tensors, seed=0):
    """Return the outer loss of ``run(algorithm)`` and its gradients, zeros for None."""
    torch.manual_seed(seed)
    loss = run(algorithm)
    grads = torch.autograd.grad(loss, tensors, allow_unused=True)
    filled = [
        torch.zeros_like(t) if g is None else g
        for g, t in zip(grads, tensors, strict=True)
    ]
    return loss.detach(), filled


def largest_gap(one, other):
    """Return the largest absolute difference between two lists of tensors."""
    gaps = [(a - b).detach().abs().max() for a, b in zip(one, other, strict=True)]
    return float(torch.stack(gaps).max())
