"""One iteration of a bilevel problem by this package, by ``higher`` and by hand.

A method is a function of a :class:`~benchmarks.problems.Bilevel`. It makes one
iteration and returns the hypergradient: one tensor for each hyperparameter, in the
order of the problem's hyperparameters.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import higher
import torch
from torch import Tensor
from torch.func import functional_call

from benchmarks.problems import Bilevel
from l2l_evograd import EvoGrad, Exact, Guided, bilevel_step

BilevelMethod = Callable[[Bilevel], list[Tensor]]

# Name of the ordinary training step, which all costs are compared with.
PLAIN_STEP = "plain"

SIGMA, TEMPERATURE, CANDIDATES = 1e-3, 0.05, 2


def training_step(problem: Bilevel) -> list[Tensor]:
    """Make one ordinary training step of θ. There is no hypergradient to return."""
    found = torch.autograd.grad(problem.inner(problem.model), problem.weights)
    step_base(problem, found)
    return []


def step_base(problem: Bilevel, gradients: Sequence[Tensor]) -> None:
    """Make the step of θ along given gradients."""
    for weight, slope in zip(problem.weights, gradients, strict=True):
        weight.grad = slope
    problem.base.step()


def step_both(
    problem: Bilevel,
    hypergradient: Sequence[Tensor],
    gradients: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Make the step of λ and then the step of θ.

    Args:
        problem: the problem.
        hypergradient: one tensor for each hyperparameter.
        gradients: ∇ℓ at the old λ, for the step of θ; None: ∇ℓ is computed at the
            new λ.

    Returns:
        The hypergradient, detached.
    """
    found = [tensor.detach() for tensor in hypergradient]
    for tensor, own in zip(problem.hyperparameters, found, strict=True):
        tensor.grad = own
    problem.hyper.step()
    if gradients is None:
        training_step(problem)
    else:
        step_base(problem, gradients)
    return found


def naive(problem: Bilevel) -> list[Tensor]:
    """Make one iteration by Algorithm 1, line by line; all candidates are kept."""
    gradients = None
    if problem.base_step == "before":
        inner = problem.inner(problem.model)
        gradients = torch.autograd.grad(inner, problem.weights)
    chosen = {id(tensor) for tensor in problem.weights}
    names = [n for n, p in problem.model.named_parameters() if id(p) in chosen]
    candidates, losses = [], []
    for _ in range(CANDIDATES):
        # Hyperparameters inside the model are shared by all copies.
        shared: dict[int, Any] = {id(t): t for t in problem.hyperparameters}
        net = copy.deepcopy(problem.model, shared)
        parameters = dict(net.named_parameters())
        with torch.no_grad():
            for name in names:
                parameter = parameters[name]
                parameter.add_(SIGMA * torch.randn_like(parameter).sign())
        candidates.append(parameters)
        losses.append(problem.inner(net))
    weights = torch.softmax(-torch.stack(losses) / TEMPERATURE, dim=0)
    merged = {
        name: sum(w * c[name] for w, c in zip(weights, candidates, strict=True))
        for name in names
    }
    outer = problem.outer(At(problem.model, merged))
    return step_both(problem, gradient(outer, problem.hyperparameters), gradients)


class At(torch.nn.Module):
    """A module that is called with other weights.

    Args:
        module: the module.
        weights: the weights to call it with, by name.
    """

    def __init__(self, module: torch.nn.Module, weights: dict[str, Any]) -> None:
        super().__init__()
        self.module = module
        self._merged = weights

    def forward(self, *args: Any) -> Tensor:
        """Call the module with the other weights."""
        found: Tensor = functional_call(self.module, self._merged, args)
        return found


def second_order(problem: Bilevel) -> list[Tensor]:
    """Make one iteration with the exact hypergradient through ``higher``.

    If the step of θ is made at the old λ, it uses the gradient of the virtual step, as
    the published code of feature-wise transformation does.
    """
    optimizer = torch.optim.SGD(problem.weights, lr=problem.lr)
    kept: list[Tensor] = []

    def keep(gradients: list[Tensor]) -> list[Tensor]:
        own = {id(weight) for weight in problem.weights}
        pairs = zip(problem.model.parameters(), gradients, strict=True)
        kept.extend(slope.detach() for p, slope in pairs if id(p) in own)
        return gradients

    with higher.innerloop_ctx(problem.model, optimizer, copy_initial_weights=False) as (
        net,
        inner_optimizer,
    ):
        inner_optimizer.step(problem.inner(net), grad_callback=keep)
        found = gradient(problem.outer(net), problem.hyperparameters)
    return step_both(problem, found, kept if problem.base_step == "before" else None)


def ours(
    estimator: Any,
    update: str = "gradient",
    order: str | None = None,
    generator: torch.Generator | None = None,
    check: str = "never",
) -> BilevelMethod:
    """Return a method that calls ``bilevel_step`` once.

    By default nothing is checked: a check costs a plain step, and of a training's steps
    one in a hundred is checked.

    Args:
        estimator: estimator of the hypergradient.
        update: as in ``bilevel_step``.
        order: ``base_step`` of ``bilevel_step``; None: that of the problem.
        generator: generator of the perturbations; None: torch's global one.
        check: as in ``bilevel_step``.
    """

    def step(problem: Bilevel) -> list[Tensor]:
        return bilevel_step(
            problem.model,
            problem.inner,
            problem.outer,
            problem.base,
            problem.hyper,
            hyperparameters=problem.hyperparameters,
            lr=problem.lr,
            update=update,
            estimator=estimator,
            base_step=order or problem.base_step,
            generator=generator,
            check=check,
        ).hypergradient

    return step


def gradient(loss: Tensor, targets: Sequence[Tensor]) -> list[Tensor]:
    """Return ∂loss/∂targets; zeros for tensors that the loss does not depend on."""
    found = torch.autograd.grad(loss, targets, allow_unused=True)
    return [
        torch.zeros_like(target) if one is None else one
        for one, target in zip(found, targets, strict=True)
    ]


METHODS: dict[str, BilevelMethod] = {
    PLAIN_STEP: training_step,
    "naive Algorithm 1": naive,
    "second order (higher)": second_order,
    "Algorithm 1": ours(EvoGrad(), "evolution"),
    "evograd, K = 2": ours(EvoGrad(2)),
    "evograd, K = 8": ours(EvoGrad(8)),
    "evograd, K = 32": ours(EvoGrad(32)),
    "guided, forward": ours(Guided(scheme="forward")),
    "guided, central": ours(Guided()),
    "guided, base first": ours(Guided(scheme="forward"), order="before"),
    "exact": ours(Exact()),
    "exact, forward mode": ours(Exact(mode="forward")),
    "exact, double backward": ours(Exact(mode="reverse")),
}
