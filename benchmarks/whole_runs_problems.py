"""Training runs whose hypergradients are timed, and the methods that compute them.

Each run is SGD with momentum on random images of ten classes. What is learned is the
learning rate in windows of steps, or weights of the training images.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import higher
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from l2l_evograd.unroll import forward_mode, greedy, reversible_sgd, unrolled_sgd

MLP, LENET = "MLP 784-100-100-10", "LeNet"
RATES, WEIGHTS = "learning rates", "weights of training images"
UNROLLED, FORWARD, REVERSIBLE = "unrolled_sgd", "forward_mode", "reversible_sgd"
GREEDY, HIGHER = "greedy", "higher"

_TRAIN, _VALIDATION, _BATCH, _LR = 10_000, 500, 100, 0.02
_MOMENTUM = 230 / 256  # a momentum that reversible_sgd represents exactly


@dataclass(frozen=True)
class Work:
    """A training run and what is learned in it.

    Attributes:
        network: ``MLP`` (89,610 weights) or ``LENET`` (44,426 weights).
        steps: number T of steps.
        learned: ``RATES``, constant over windows of steps; or ``WEIGHTS`` of groups of
            training images in the inner loss.
        count: number N of values that are learned.
    """

    network: str
    steps: int
    learned: str
    count: int


@dataclass
class Run:
    """A training run, ready to be differentiated.

    Attributes:
        work: what it is.
        model: the network.
        images: training images, then validation images.
        labels: their classes.
        batches: numbers of the images of each step, shape (T, batch).
        learned: the values to differentiate, shape (N,).
    """

    work: Work
    model: nn.Module
    images: Tensor
    labels: Tensor
    batches: Tensor
    learned: Tensor
    params: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        named = self.model.named_parameters()
        self.params = {name: weight.detach() for name, weight in named}

    def __len__(self) -> int:
        """Return the number of steps; a run is the sequence of its inner losses."""
        return self.work.steps

    def __getitem__(self, step: int) -> Callable[[Any, Any], Tensor]:
        """Return the inner loss of a step."""
        return partial(self._inner, batch=self.batches[step])

    @property
    def rates(self) -> bool:
        """Whether learning rates are learned."""
        return self.work.learned == RATES

    def inner(self, scores: Tensor, batch: Tensor, weights: Tensor | None) -> Tensor:
        """Return the loss of a batch, weighted if weights are learned."""
        if weights is None:
            return cross_entropy(scores, self.labels[batch])
        losses = cross_entropy(scores, self.labels[batch], reduction="none")
        return (weights[batch * self.work.count // _TRAIN] * losses).mean()

    def outer(self, params: dict[str, Tensor], learned: Tensor | None) -> Tensor:
        """Return the loss of the validation images."""
        scores = functional_call(self.model, params, (self.images[_TRAIN:],))
        return cross_entropy(scores, self.labels[_TRAIN:])

    def _inner(
        self, params: dict[str, Tensor], weights: Tensor | None, batch: Tensor
    ) -> Tensor:
        scores = functional_call(self.model, params, (self.images[batch],))
        return self.inner(scores, batch, weights)


def make_run(work: Work, dtype: torch.dtype = torch.float32) -> Run:
    """Return the run; the same numbers in every precision."""
    torch.manual_seed(0)
    labels = torch.randint(10, (_TRAIN + _VALIDATION,))
    images = 0.5 * torch.randn(10, 784)[labels] + torch.randn(len(labels), 784)
    batches = torch.randint(_TRAIN, (work.steps, _BATCH))
    model = _mlp() if work.network == MLP else _lenet()
    value = _LR if work.learned == RATES else 1.0
    learned = torch.full((work.count,), value, dtype=dtype)
    if work.network == LENET:
        images = images.unflatten(1, (1, 28, 28))
    return Run(work, model.to(dtype), images.to(dtype), labels, batches, learned)


def _mlp() -> nn.Module:
    return nn.Sequential(
        *(nn.Linear(784, 100), nn.Tanh()),
        *(nn.Linear(100, 100), nn.Tanh()),
        nn.Linear(100, 10),
    )


def _lenet() -> nn.Module:
    # Smooth, so that hypergradients in two precisions can be compared.
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(256, 120), nn.Tanh()),
        *(nn.Linear(120, 84), nn.Tanh()),
        nn.Linear(84, 10),
    )


def by(mode: Callable[..., Any], run: Run) -> Tensor:
    """Return the hypergradient by one of the package's functions."""
    lr: float | Tensor = run.learned if run.rates else _LR
    found = mode(
        run,
        run.outer,
        run.params,
        None if run.rates else run.learned,
        lr=lr,
        momentum=_MOMENTUM,
        steps=run.work.steps,
    )
    gradient: Tensor = found.schedule["lr"] if run.rates else found.gradients
    return gradient


def by_higher(run: Run) -> Tensor:
    """Return the hypergradient through the steps of ``higher``'s optimizer."""
    learned = run.learned.clone().requires_grad_()
    optimizer = torch.optim.SGD(run.model.parameters(), lr=_LR, momentum=_MOMENTUM)
    with higher.innerloop_ctx(run.model, optimizer) as (net, inner_optimizer):
        for step, batch in enumerate(run.batches):
            value = run.inner(
                net(run.images[batch]), batch, None if run.rates else learned
            )
            override = None
            if run.rates:
                window = step * run.work.count // run.work.steps
                override = {"lr": [learned[window]]}
            inner_optimizer.step(value, override=override)
        scores = net(run.images[_TRAIN:])
        outer = cross_entropy(scores, run.labels[_TRAIN:])
        (gradient,) = torch.autograd.grad(outer, [learned])
    return gradient


METHODS: dict[str, Callable[[Run], Tensor]] = {
    UNROLLED: partial(by, unrolled_sgd),
    FORWARD: partial(by, forward_mode),
    REVERSIBLE: partial(by, reversible_sgd),
    GREEDY: partial(by, greedy),
    HIGHER: by_higher,
}
