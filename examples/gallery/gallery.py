"""What the problems of the gallery share: their form and their training.

A problem is a bilevel problem of a minute whose best λ is known. Every problem is
trained in the same ways:

    none            λ is not learned: the control
    evograd-paper   the paper's Algorithm 1, K = 2
    evograd         EvoGrad(), K = 2
    evograd-32      EvoGrad(32)
    guided          Guided()
    exact           Exact()
    known           λ is fixed at the known answer

All of them start from the same weights and see the same data. In all of them λ takes
Adam's steps with β = (0.9, 0.99), so that only the direction of a hypergradient
matters, not its length. The virtual step has the learning rate of the weights.

From the root of a checkout:

    from examples.gallery.loss_weights import PROBLEM

    run = PROBLEM.train("guided", seed=0)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from l2l_evograd import EvoGrad, Exact, Guided, bilevel_step
from l2l_evograd.experiments.methods import PAPER_POPULATION
from l2l_evograd.seeds import generator_for

Loss = Callable[[nn.Module], Tensor]

LEARNED: Mapping[str, dict[str, Any]] = {
    "evograd-paper": {"update": "evolution", "estimator": PAPER_POPULATION},
    "evograd": {"estimator": EvoGrad()},
    "evograd-32": {"estimator": EvoGrad(32)},
    "guided": {"estimator": Guided()},
    "exact": {"estimator": Exact()},
}
METHODS = ("none", *LEARNED, "known")


@dataclass(frozen=True)
class Instance:
    """A problem with the data and the initial weights of one seed.

    Attributes:
        model: the model; its parameters are θ.
        optimizer: optimizer of θ.
        strength: λ, a vector.
        losses: returns ℓ and L of the next iteration.
        quality: returns how good the model is now.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    strength: Tensor
    losses: Callable[[], tuple[Loss, Loss]]
    quality: Callable[[], float]


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        quality: quality of the trained model.
        hyperparameters: the final λ, as :attr:`Problem.shown` shows it.
        seconds_per_iteration: median.
        iterations: number of iterations.
        curve: λ before the first and after every iteration.
    """

    quality: float
    hyperparameters: list[float]
    seconds_per_iteration: float
    iterations: int
    curve: list[list[float]] = field(repr=False, default_factory=list)


@dataclass(frozen=True)
class Problem:
    """A bilevel problem whose best λ is known.

    Attributes:
        name: name of the problem.
        make: returns the problem of a seed, for a given λ.
        start: λ at the beginning of learning.
        fixed: fixed λ to compare with; ``"none"`` and ``"known"`` at least.
        labels: what each of λ belongs to.
        quantity: what ``shown`` returns.
        shown: maps λ to the figures that are compared with the known answer.
        quality_name: what ``quality`` is.
        higher_is_better: whether a higher quality is better.
        iterations: number of iterations unless another is given.
        hyper_lr: learning rate of Adam for λ.
        methods: the ways of training that all problems have.
    """

    name: str
    make: Callable[[int, Tensor], Instance]
    start: Tensor
    fixed: Mapping[str, Tensor]
    labels: Sequence[str]
    quantity: str
    shown: Callable[[Tensor], Tensor]
    quality_name: str
    higher_is_better: bool
    iterations: int
    hyper_lr: float
    methods: tuple[str, ...] = METHODS

    @property
    def known(self) -> list[float]:
        """The known answer, as ``shown`` shows it."""
        return self.shown(self.fixed["known"]).tolist()

    def train(
        self, method_name: str, seed: int = 0, iterations: int | None = None
    ) -> Run:
        """Train one model and return how good it is.

        Args:
            method_name: one of ``methods``, or a name in ``fixed``.
            seed: seed of the data, of the weights and of the perturbations.
            iterations: number of iterations; None: those of the problem.
        """
        count = self.iterations if iterations is None else iterations
        options = LEARNED.get(method_name)
        value = self.start if options else self.fixed[method_name]
        strength = value.clone().requires_grad_(options is not None)
        instance = self.make(seed, strength)
        hyper = torch.optim.Adam([strength], lr=self.hyper_lr, betas=(0.9, 0.99))
        noise = generator_for(seed, "perturbations")
        curve, seconds = [self.shown(strength.detach()).tolist()], []
        for _ in range(count):
            inner, outer = instance.losses()
            begin = perf_counter()
            if options is None:
                instance.optimizer.zero_grad()
                inner(instance.model).backward()
                instance.optimizer.step()
            else:
                bilevel_step(
                    *(instance.model, inner, outer, instance.optimizer, hyper),
                    base_step="before",
                    generator=noise,
                    **options,
                )
            seconds.append(perf_counter() - begin)
            curve.append(self.shown(strength.detach()).tolist())
        quality = instance.quality()
        return Run(quality, curve[-1], median(seconds), count, curve)
