"""The truth: ``functional_call``, with every step on one second-order autograd graph.

:class:`Reference` has the interface of ``EvoGradMetaOptimizer`` and shares no code with
the package. The functions below it do to a learner of either class what users do to
learners, so that a test is written once and run with both.
"""

import copy
import importlib.util
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel


class Reference:
    """A module at explicit weights.

    Args:
        model: left as it is.
        lr: of the inner steps; may be set anew between them.
        first_order: as in the package; with hyperparameters it cuts each step's
            gradient from the weights that it was taken at, and from nothing else.
        hyperparameters: tensors that are never adapted.
        settings: of the package, which change no number.
    """

    def __init__(self, model, lr, first_order=None, hyperparameters=None, **settings):
        if isinstance(hyperparameters, Tensor):
            hyperparameters = [hyperparameters]
        self.model, self.lr, self.settings = model, lr, settings
        self.hyperparameters = list(hyperparameters or ())
        if first_order is None:
            first_order = bool(self.hyperparameters)
        self.first_order = first_order
        self._chosen = {id(tensor) for tensor in self.hyperparameters}

    def clone(self) -> "Reference":
        new = copy.copy(self)
        new.module = structure_of(self.model, {})
        new._whole = _Whole(new.module)
        named = dict(self.model.named_parameters())
        new.adapted = [
            name
            for name, p in named.items()
            if p.requires_grad and id(p) not in self._chosen
        ]
        buffers = {name: b.clone() for name, b in self.model.named_buffers()}
        new._tensors = {f"module.{n}": t for n, t in (named | buffers).items()}
        new._held = []
        new.change(lambda name, p: p.clone())
        return new

    def __deepcopy__(self, memo) -> "Reference":
        new = copy.copy(self)
        if "module" in vars(self):
            new.module = structure_of(self.module, {})
            new._whole = _Whole(new.module)
            new._tensors = {
                name: tensor if id(tensor) in self._chosen else tensor.detach().clone()
                for name, tensor in self._tensors.items()
            }
            new.change(lambda name, p: p.detach().clone().requires_grad_())
        else:
            new.model = copy.deepcopy(self.model, memo)
        return new

    def __call__(self, *args, **kwargs):
        return self.inside(lambda module: module(*args, **kwargs))

    def __getattr__(self, name):
        """A method of the model, run at the present weights."""
        if name.startswith("_") or not hasattr(type(self.model), name):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.inside(
            lambda module: getattr(module, name)(*args, **kwargs)
        )

    def inside(self, function: Callable[[nn.Module], Any]) -> Any:
        """Call a function of the module at the present weights."""
        # Batch normalisation in training mode writes to what an earlier call saved in
        # evaluation mode, and autograd does not notice: each call has its own.
        for name, _ in self._whole.named_buffers():
            self._tensors[name] = self._tensors[name].clone()
        with sdpa_kernel(SDPBackend.MATH):
            return functional_call(self._whole, self._tensors, (function,))

    def parameters(self) -> list[Tensor]:
        return [tensor for _, tensor in self.named_parameters()]

    def named_parameters(self) -> list[tuple[str, Tensor]]:
        names = [name for name, _ in self.model.named_parameters()]
        return [(name, self._tensors[f"module.{name}"]) for name in names]

    def train(self, mode: bool = True) -> None:
        self.module.train(mode)

    def eval(self) -> None:
        self.train(False)

    def adapt(self, loss, first_order=None, allow_unused=None, allow_nograd=None):
        if not isinstance(loss, Tensor):
            loss = loss(self)
        first_order = self.first_order if first_order is None else first_order
        old = [self._tensors[f"module.{name}"] for name in self.adapted]
        grads = torch.autograd.grad(
            loss,
            old,
            create_graph=bool(self.hyperparameters) or not first_order,
            retain_graph=True,
            allow_unused=True,
        )
        found = {
            name: grad
            for name, grad in zip(self.adapted, grads, strict=True)
            if grad is not None
        }
        if self.hyperparameters and first_order:
            wanted = [name for name, grad in found.items() if grad.requires_grad]
            cut = _OfTheNamed.apply(
                [found[name] for name in wanted], self._held, *self.hyperparameters
            )
            found |= zip(wanted, cut, strict=True)
        self.change(lambda name, p: p - self.lr * found[name] if name in found else p)

    def change(self, function: Callable[[str, Tensor], Tensor]) -> None:
        """Put ``function(name, weight)`` in the place of each adapted weight."""
        for name in self.adapted:
            key = f"module.{name}"
            self._tensors[key] = function(name, self._tensors[key])
        self._held = [*self._held, *weights(self).values()]


class _OfTheNamed(torch.autograd.Function):
    """Gradients of a step that depend on the hyperparameters, and on no weight."""

    @staticmethod
    def forward(ctx, grads, weights, *hyperparameters):
        ctx.grads, ctx.weights, ctx.named = grads, weights, hyperparameters
        return tuple(grad.detach() for grad in grads)

    @staticmethod
    def backward(ctx, *cotangents):
        none = (None,) * len(ctx.named)
        if not any(bool(c.any()) for c in cotangents):
            return None, None, *none
        # Nothing passes weights, present or past: what lies behind is not this step's.
        handles = [
            p.register_hook(torch.zeros_like) for p in ctx.weights if p.requires_grad
        ]
        found = torch.autograd.grad(
            ctx.grads, ctx.named, cotangents, retain_graph=True, allow_unused=True
        )
        for handle in handles:
            handle.remove()
        return None, None, *found


class _Whole(nn.Module):
    """Calls a function of a module where ``functional_call`` calls a module."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, function):
        return function(self.module)


def structure_of(module: nn.Module, memo: dict[int, nn.Module]) -> nn.Module:
    """A copy of every module, not of what they hold."""
    if id(module) not in memo:
        new = memo[id(module)] = object.__new__(type(module))
        new.__dict__ = {
            key: value.copy() if isinstance(value, dict) else value
            for key, value in vars(module).items()
        }
        for name, child in module._modules.items():
            if child is not None:
                new._modules[name] = structure_of(child, memo)
    return memo[id(module)]


# What users do to a learner, the package's or the reference's.


def inside(learner: Any, function: Callable[[nn.Module], Any]) -> Any:
    """``function(learner.module)``, such as ``lambda module: module.aux``."""
    if isinstance(learner, Reference):
        return learner.inside(function)
    return function(learner.module)


def weights(learner: Any) -> dict[str, Tensor]:
    """The weights that ``adapt`` moves, by their names in the module."""
    if isinstance(learner, Reference):
        return {name: learner._tensors[f"module.{name}"] for name in learner.adapted}
    chosen = {id(tensor) for tensor in getattr(learner, "hyperparameters", ())}
    return {
        name: p
        for name, p in learner.module.named_parameters()
        if p.requires_grad and id(p) not in chosen
    }


def change_in_place(
    learner: Any, function: Callable[[Tensor], Tensor], names: Sequence[str] = ()
) -> None:
    """Change weights under ``no_grad``, which autograd takes for adding a constant."""
    if isinstance(learner, Reference):

        def changed(name, p):
            return p if names and name not in names else p + (function(p) - p).detach()

        learner.change(changed)
        return
    with torch.no_grad():
        for name, p in weights(learner).items():
            if not names or name in names:
                p.copy_(function(p))


def detach(learner: Any) -> list[Tensor]:
    """Cut the weights off in place; returns them, which are leaves now."""
    if isinstance(learner, Reference):
        learner.change(lambda name, p: p.detach().requires_grad_())
        return list(weights(learner).values())
    return [p.detach_().requires_grad_() for p in weights(learner).values()]


def load(learner: Any, state: dict[str, Tensor]) -> None:
    """``load_state_dict`` of a part."""
    if isinstance(learner, Reference):
        learner.change(
            lambda name, p: p + (state[name] - p).detach() if name in state else p
        )
    else:
        learner.module.load_state_dict(state, strict=False)


def replace(learner: Any, name: str, tensor: Tensor) -> None:
    """Put a computed tensor in the place of a parameter."""
    if isinstance(learner, Reference):
        learner.change(lambda key, p: tensor if key == name else p)
    else:
        owner, _, key = name.rpartition(".")
        learner.module.get_submodule(owner)._parameters[key] = tensor


def update_by_hand(learner: Any, loss: Tensor, lr: float) -> None:
    """Make a differentiable step without ``adapt``, as learn2learn's maml_update."""
    named = weights(learner)
    grads = torch.autograd.grad(
        loss, list(named.values()), create_graph=True, allow_unused=True
    )
    moved = {
        n: p if g is None else p - lr * g
        for (n, p), g in zip(named.items(), grads, strict=True)
    }
    if isinstance(learner, Reference):
        learner.change(lambda name, p: moved[name])
        return
    exchanged = {id(p): moved[n] for n, p in named.items()}
    for child in learner.module.modules():
        for key, p in child._parameters.items():
            child._parameters[key] = exchanged.get(id(p), p)
        if isinstance(child, nn.RNNBase):  # as learn2learn's update_module does
            names = child._flat_weights_names
            child._flat_weights = [getattr(child, name) for name in names]


# Comparing.


def seed_everything(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    if importlib.util.find_spec("numpy"):
        importlib.import_module("numpy").random.seed(seed)


def derivatives(loss: Tensor, tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return the gradients, zeros where nothing arrives."""
    tensors = list(tensors)
    found = torch.autograd.grad(loss, tensors, allow_unused=True)
    pairs = zip(found, tensors, strict=True)
    return [torch.zeros_like(t) if g is None else g.detach() for g, t in pairs]


def gap(found: Sequence[Tensor], truth: Sequence[Tensor], floor: float = 1e-3) -> float:
    """Return the largest error relative to the largest true entry."""
    largest = max((float(t.abs().max()) for t in truth if t.numel()), default=0.0)
    worst = 0.0
    for one, other in zip(found, truth, strict=True):
        assert one.shape == other.shape, (one.shape, other.shape)
        assert bool(torch.isfinite(one).all())
        if one.numel():
            worst = max(worst, float((one - other).abs().max()))
    return worst / max(largest, floor)
