"""Small bilevel problems in float64, each a function that builds it anew from a seed.

A problem is a module, two losses of a module, the hyperparameters and the inner
learning rate. The quadratic ones come with their hypergradients in closed form; for the
others ``l2l_evograd.oracle.exact_hypergradient`` has the answer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2l_evograd.oracle.unrolled import Unrolled

Loss = Callable[[nn.Module], Tensor]


@dataclass(frozen=True)
class Problem:
    """A bilevel problem.

    Attributes:
        name: its key in :data:`PROBLEMS`.
        model: θ, and for some problems λ too.
        inner_loss: ℓ(θ, λ), a function of the module.
        outer_loss: L(θ), a function of the module.
        hyperparameters: λ.
        lr: η of the inner step.
        exact: the hypergradient after one step where there is a formula, else None.
    """

    name: str
    model: nn.Module
    inner_loss: Loss
    outer_loss: Loss
    hyperparameters: list[Tensor]
    lr: float
    exact: list[Tensor] | None = None


class Vector(nn.Module):
    """A module that is one vector; calling it returns the vector."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(values)

    def forward(self) -> Tensor:
        return self.weight


class ScaledAndNoisy(nn.Module):
    """Two layers with a learned scale per channel and feature-wise noise between."""

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.scale = nn.Parameter(torch.ones(hidden))
        self.spread = nn.Parameter(torch.full((hidden,), -1.0))
        self.second = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x)) * self.scale
        if self.training:
            x = x * (1 + torch.randn(x.shape[1]).to(x) * F.softplus(self.spread))
        return self.second(x)


def _quadratic(name: str, penalty: float) -> Problem:
    """ℓ = ½ θᵀAθ − θᵀB λ², L = ½ ‖θ − t‖² + ½ c ‖λ‖².

    θ' = θ − η (A θ − B λ²), so dL/dλ = 2 η λ ∘ Bᵀ(θ' − t) + c λ.
    """
    draw = _seeded(1)
    weights, count, lr = 7, 3, 0.1
    root = draw(weights, weights)
    curvature = root @ root.T / weights + torch.eye(weights, dtype=torch.float64)
    coupling, target = draw(weights, count), draw(weights)
    model = Vector(draw(weights))
    hyper = draw(count).requires_grad_()

    def inner_loss(view: nn.Module) -> Tensor:
        theta = view()
        return theta @ curvature @ theta / 2 - theta @ coupling @ hyper.square()

    def outer_loss(view: nn.Module) -> Tensor:
        gap = (view() - target).square().sum() / 2
        return gap + penalty * hyper.square().sum() / 2 if penalty else gap

    with torch.no_grad():
        theta = model.weight
        stepped = theta - lr * (curvature @ theta - coupling @ hyper.square())
        exact = 2 * lr * hyper * (coupling.T @ (stepped - target)) + penalty * hyper
    return Problem(name, model, inner_loss, outer_loss, [hyper], lr, [exact])


def quadratic() -> Problem:
    """A quadratic whose outer loss is free of λ."""
    return _quadratic("quadratic", 0.0)


def quadratic_with_direct_term() -> Problem:
    """A quadratic whose outer loss depends on λ by itself, too."""
    return _quadratic("quadratic_with_direct_term", 0.3)


def _weighted_samples(name: str, activation: nn.Module) -> Problem:
    draw = _seeded(2)
    samples, inputs, classes = 12, 5, 3
    model = _network(activation)
    x, y = draw(samples, inputs), torch.arange(samples) % classes
    x_outer, y_outer = draw(9, inputs), torch.arange(9) % classes
    logits = draw(samples).mul_(0.1).requires_grad_()

    def inner_loss(view: nn.Module) -> Tensor:
        losses = F.cross_entropy(view(x), y, reduction="none")
        return (torch.sigmoid(logits) * losses).mean()

    def outer_loss(view: nn.Module) -> Tensor:
        return F.cross_entropy(view(x_outer), y_outer)

    return Problem(name, model, inner_loss, outer_loss, [logits], 0.5)


def smooth_mlp() -> Problem:
    """A network without kinks; λ are the logits of the sample weights."""
    return _weighted_samples("smooth_mlp", nn.Softplus())


def relu_mlp() -> Problem:
    """The same with kinks."""
    return _weighted_samples("relu_mlp", nn.ReLU())


def hyperparameters_inside() -> Problem:
    """λ is in the module: scales of channels, and the spread of feature-wise noise.

    The inner loss runs with noise, the outer loss puts what it is given in eval mode.
    """
    draw = _seeded(3)
    inputs, classes = 4, 3
    model = _double(lambda: ScaledAndNoisy(inputs, 6, classes))
    assert isinstance(model, ScaledAndNoisy)
    x, y = draw(10, inputs), torch.arange(10) % classes
    x_outer, y_outer = draw(8, inputs), torch.arange(8) % classes

    def inner_loss(view: nn.Module) -> Tensor:
        return F.cross_entropy(view(x), y)

    def outer_loss(view: nn.Module) -> Tensor:
        view.eval()  # a mode of the view, which must not reach the model
        return F.cross_entropy(view(x_outer), y_outer)

    hyper: list[Tensor] = [model.scale, model.spread]
    name = "hyperparameters_inside"
    return Problem(name, model, inner_loss, outer_loss, hyper, 0.3)


def batch_norm_and_dropout() -> Problem:
    """Batch statistics, running statistics and masks, in training mode throughout."""
    draw = _seeded(4)
    inputs, classes = 5, 3
    model = _double(
        lambda: nn.Sequential(
            nn.Linear(inputs, 8),
            nn.BatchNorm1d(8),
            nn.Softplus(),
            nn.Dropout(0.4),
            nn.Linear(8, classes),
        )
    )
    x, y = draw(12, inputs), torch.arange(12) % classes
    x_outer, y_outer = draw(9, inputs), torch.arange(9) % classes
    log_decay = torch.full((2,), -3.0, dtype=torch.float64).requires_grad_()
    logits = draw(12).mul_(0.1).requires_grad_()

    def inner_loss(view: nn.Module) -> Tensor:
        losses = F.cross_entropy(view(x), y, reduction="none")
        matrices = [p for p in view.parameters() if p.ndim == 2]
        squares = torch.stack([matrix.square().sum() for matrix in matrices])
        return (torch.sigmoid(logits) * losses).mean() + log_decay.exp() @ squares

    def outer_loss(view: nn.Module) -> Tensor:
        return F.cross_entropy(view(x_outer), y_outer)

    hyper = [log_decay, logits]
    name = "batch_norm_and_dropout"
    return Problem(name, model, inner_loss, outer_loss, hyper, 0.2)


def weight_net() -> Problem:
    """λ is a network that weighs each sample by its own loss, as Meta-Weight-Net's."""
    draw = _seeded(5)
    inputs, classes = 5, 3
    model = _network(nn.Tanh())
    weigher = _double(
        lambda: nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1), nn.Sigmoid())
    )
    x, y = draw(12, inputs), torch.arange(12) % classes
    x_outer, y_outer = draw(9, inputs), torch.arange(9) % classes

    def inner_loss(view: nn.Module) -> Tensor:
        losses = F.cross_entropy(view(x), y, reduction="none")
        weights = weigher(losses.detach()[:, None])[:, 0]
        return (weights * losses).sum() / weights.sum()

    def outer_loss(view: nn.Module) -> Tensor:
        return F.cross_entropy(view(x_outer), y_outer)

    hyper: list[Tensor] = list(weigher.parameters())
    return Problem("weight_net", model, inner_loss, outer_loss, hyper, 0.5)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    build.__name__: build
    for build in (
        quadratic,
        quadratic_with_direct_term,
        smooth_mlp,
        relu_mlp,
        hyperparameters_inside,
        batch_norm_and_dropout,
        weight_net,
    )
}


def _seeded(seed: int) -> Callable[..., Tensor]:
    """Return a function that draws normal numbers of a shape from a generator."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return draw


def _double(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a module in float64, leaving the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        return build().double()


def _network(activation: nn.Module) -> nn.Module:
    return _double(lambda: nn.Sequential(nn.Linear(5, 8), activation, nn.Linear(8, 3)))


def unrolled(problem: Problem, steps: int = 1) -> Unrolled:
    return Unrolled(
        problem.model,
        problem.inner_loss,
        problem.outer_loss,
        problem.hyperparameters,
        problem.lr,
        steps,
    )
