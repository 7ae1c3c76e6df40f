"""The paper's one-dimensional problem, solved with Algorithm 1.

f_T(x, λ) = (x − 1)² + λ x², f_V(x) = (x − 0.5)². The minimiser of f_T is
x* = 1/(1 + λ), so the true hypergradient is (λ − 1)/(λ + 1)³.
"""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from l2l_evograd.bilevel import bilevel_step
from l2l_evograd.estimators import EvoGrad
from l2l_evograd.replay.inner_loss import InnerLoss
from l2l_evograd.seeds import draw_seed
from l2l_evograd.updates.adjoint import Wanted
from l2l_evograd.updates.evolution import evolve

SIGMA, TEMPERATURE = 1.0, 0.5
COUNTS = (2, 10, 100)
STARTS = ((-1.8, 0.2), (-0.9, 1.2), (0.9, 0.8), (1.3, 0.2), (1.5, 1.7))
LR = META_LR = 0.1
STEPS = 5


def population(count: int) -> EvoGrad:
    """Return the illustration's population of ``count`` candidates."""
    return EvoGrad(count, SIGMA, TEMPERATURE, noise="gaussian")


def grid() -> Tensor:
    """Return the 100 values of λ, shape (100,), float64."""
    return torch.linspace(0.1, 2, 100, dtype=torch.float64)


def inner_loss(x: Any, lam: Any) -> Any:
    """Return f_T = (x − 1)² + λ x²."""
    return (x - 1) ** 2 + lam * x**2


def outer_loss(x: Any) -> Any:
    """Return f_V = (x − 0.5)²."""
    return (x - 0.5) ** 2


def truth(lam: Any) -> Any:
    """Return the true hypergradient, df_V(x*(λ))/dλ = (λ − 1)/(λ + 1)³."""
    return (lam - 1) / (lam + 1) ** 3


def limit(lam: Any) -> Any:
    """Return E[hypergradient] for K → ∞ and x ~ N(0, 1).

    The value is −(4/(τP)) (v + μ² − μ/2). In this limit, θ* is the mean of a Gaussian
    with precision P = 1/σ² + 2(1 + λ)/τ. Over x, θ* has mean μ = (2/τ)/P and variance
    v = 1/(σ⁴P²). As τ → 0, the value tends to the true hypergradient.
    """
    precision = 1 / SIGMA**2 + 2 * (1 + lam) / TEMPERATURE
    mean = (2 / TEMPERATURE) / precision
    variance = 1 / (SIGMA**4 * precision**2)
    return -4 / (TEMPERATURE * precision) * (variance + mean**2 - mean / 2)


def estimates(x: Tensor, lam: Tensor, estimator: EvoGrad, seed: int) -> Tensor:
    """Return Algorithm 1's hypergradients for many problems at once.

    Problem i starts at x_i, has the hyperparameter λ_i, and has its own population.
    Its estimate is what ``hypergradient(..., update="evolution")`` returns for it.

    Args:
        x: the weights, shape (N,).
        lam: the hyperparameters, shape (N,).
        estimator: the population.
        seed: seed of the perturbations.

    Returns:
        The estimates, shape (N,).

    Cost: memory for N K numbers; 10,000 problems with K = 100 take about a second.
        One call for each problem would take a quarter of an hour.
    """
    noise = estimator.perturbations([x], seed)
    draws = torch.stack([noise.draw(k)[0] for k in range(noise.count)], dim=1)

    def one(x: Tensor, lam: Tensor, draws: Tensor) -> Tensor:
        loss = _FunctionalLoss(lam)
        drawn: Any = _Drawn(draws)  # evolve needs only the draws
        (moved,), back = evolve(loss, [x], drawn, estimator.temperature, Wanted([0]))
        cotangents = back([torch.func.grad(outer_loss)(x + moved)])
        return torch.stack([t for t in cotangents if t is not None])

    with _Singly(), _as_published():
        return torch.vmap(one)(x, lam, draws)[:, 0]


@contextlib.contextmanager
def _as_published() -> Iterator[None]:
    """Say nothing of candidates that have all of the weight: the paper has them too."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the effective number of candidates")
        yield


class _FunctionalLoss(InnerLoss):
    """f_T, differentiated by a function transform that ``vmap`` can map over."""

    def __init__(self, lam: Tensor) -> None:
        self.inputs = self.leaves = [lam]

    def __call__(self, params: Any, **options: Any) -> Tensor:
        """Return ℓ."""
        return inner_loss(*params, *self.leaves)

    def gradients(
        self,
        params: Any,
        wanted: Any = None,
        params_too: bool = False,
        weights: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return ℓ, an empty list, and ∂ℓ/∂λ."""
        slope, value = torch.func.grad_and_value(inner_loss, argnums=1)(
            *params, *self.leaves
        )
        return value, [], [slope if weights is None else weights * slope]


class _Drawn:
    """The perturbations of one problem, taken from the draws for all problems."""

    def __init__(self, draws: Tensor) -> None:
        self._draws = draws
        self.count = len(draws)

    def draw(self, k: int) -> list[Tensor]:
        return [self._draws[k]]

    def project(self, direction: list[Tensor]) -> Tensor:
        return self._draws * direction[0]


class _Singly(TorchFunctionMode):
    """Computes on lists of tensors one by one, because vmap has no rules for them."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in _ONE_BY_ONE:
            first, *others = args
            several = [
                other if isinstance(other, list | tuple) else [other] * len(first)
                for other in others
            ]
            each = zip(first, *several, strict=True)
            return [_ONE_BY_ONE[func](*one) for one in each]
        return func(*args, **(kwargs or {}))


# Operations on lists, and what they do with each tensor.
_ONE_BY_ONE = {
    torch._foreach_add: torch.add,
    torch._foreach_sub: torch.sub,
    torch._foreach_mul: torch.mul,
    torch._foreach_div: torch.div,
    torch._foreach_norm: torch.linalg.vector_norm,
}


class Curve(NamedTuple):
    """Estimates over the grid of λ.

    Attributes:
        mean: mean over the trials, shape (100,).
        sd: population standard deviation over the trials, shape (100,).
    """

    mean: Tensor
    sd: Tensor


def curve(count: int, trials: int, generator: torch.Generator) -> Curve:
    """Return the mean and spread of the estimates, over trials with x ~ N(0, 1).

    Args:
        count: K.
        trials: number of trials for each λ of :func:`grid`.
        generator: draws x and the perturbations.
    """
    lam = grid().repeat(trials)
    x = torch.randn(len(lam), generator=generator, dtype=lam.dtype)
    found = estimates(x, lam, population(count), draw_seed(generator))
    found = found.view(trials, -1)
    return Curve(found.mean(dim=0), found.std(dim=0, correction=0))


class _Scalar(nn.Module):
    """The weight x as a module."""

    def __init__(self, x: float) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(x, dtype=torch.float64))

    def forward(self) -> Tensor:
        return self.x * 1


def trajectory(
    start: tuple[float, float], count: int, generator: torch.Generator
) -> list[tuple[float, float]]:
    """Return (x, λ) at the start and after each of five steps of Algorithm 1.

    In each step, x takes a gradient step on f_T. Then λ takes a step along the estimate
    at the new x. Both learning rates are 0.1.

    Args:
        start: x and λ.
        count: K.
        generator: draws the perturbations.
    """
    model = _Scalar(start[0])
    lam = torch.tensor(start[1], dtype=torch.float64, requires_grad=True)
    path = [start]
    base = torch.optim.SGD(model.parameters(), lr=LR)
    hyper = torch.optim.SGD([lam], lr=META_LR)
    for _ in range(STEPS):
        with _as_published():
            bilevel_step(
                model,
                lambda view: inner_loss(view(), lam),
                lambda view: outer_loss(view()),
                base,
                hyper,
                update="evolution",
                estimator=population(count),
                base_step="before",
                generator=generator,
            )
        path.append((float(model.x.detach()), float(lam.detach())))
    return path


def true_trajectory(start: tuple[float, float]) -> list[tuple[float, float]]:
    """Return the path of :func:`trajectory` with the true hypergradient."""
    x, lam = start
    path = [start]
    for _ in range(STEPS):
        x -= LR * (2 * (x - 1) + 2 * lam * x)
        lam -= META_LR * truth(lam)
        path.append((x, lam))
    return path
