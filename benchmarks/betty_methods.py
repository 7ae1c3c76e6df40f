"""Iterations by Betty: darts, sama, neumann and cg.

Betty's iteration has another order than the others: θ takes its step, and λ then the
step of a hypergradient at the new θ, taken for an optimum of the inner loss. For λ
inside a model the upper problem's module is a list of those parameters. For MAML the
lower problem is that of implicit MAML, which starts at the initial weights and is bound
to them by ‖θ − θ₀‖²/(2ηT).

darts and sama put the identity in the place of the inverse Hessian, where a gradient
step has η. Their outer loss is multiplied by it, and so is that of cg with its one
iteration, or λ would go far beyond where the losses are finite.

Each evaluation draws its own noise and sees its own buffers, as Betty leaves it.
"""

import copy
import logging
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from betty.configs import Config, EngineConfig
from betty.engine import Engine
from betty.logging.logger_base import get_logger
from betty.problems import ImplicitProblem
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from benchmarks.maml_tasks import MamlMethod, MamlTask, task_loss
from benchmarks.methods import Method
from benchmarks.problems import Bilevel

KINDS = ("darts", "sama", "neumann", "cg")


class Level(ImplicitProblem):
    """One level of a bilevel problem whose loss needs no batch.

    Args:
        name: ``"lower"`` or ``"upper"``.
        config: Betty's.
        module: what Betty moves to a device and switches to training.
        tensors: the parameters that this level learns.
        optimizer: Betty makes another of the same kind and options.
        loss: without arguments.
        restart: called before the first of a row of lower steps.

    Attributes:
        found: gradients of the latest step, on the upper level.
    """

    def __init__(
        self,
        name: str,
        config: Config,
        module: nn.Module,
        tensors: Sequence[Tensor],
        optimizer: Optimizer,
        loss: Callable[[], Tensor],
        restart: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(name, config, module, optimizer)
        self._tensors = list(tensors)
        self._loss = loss
        self._restart = restart
        self.found: list[Tensor] = []

    def get_batch(self) -> None:
        """Return nothing: the loss has its data."""

    def training_step(self, batch: None) -> Tensor:
        """Return the loss."""
        return self._loss()

    def parameters(self) -> list[Tensor]:
        """Return what this level learns."""
        return list(self._tensors)

    def trainable_parameters(self) -> list[Tensor]:
        """Return what this level learns."""
        return list(self._tensors)

    def on_inner_loop_start(self) -> None:
        """Put θ where a row of steps begins."""
        if self._restart is not None:
            self._restart()

    def grad_callback(self) -> None:
        """Keep the gradients of λ, which Betty deletes after the step."""
        if self._name == "upper":
            self.found = [
                torch.zeros_like(tensor) if tensor.grad is None else tensor.grad.clone()
                for tensor in self._tensors
            ]


class Iteration:
    """Iterations of Betty's engine, which is made once for a problem.

    Args:
        levels: of a problem: the lower, the upper, and the number of lower steps.
    """

    def __init__(self, levels: Callable[[Any], tuple[Level, Level, int]]) -> None:
        self._levels = levels
        self._problem: weakref.ref[Any] | None = None
        self._engine: Engine
        self._upper: Level
        self._steps = 1

    def __call__(self, problem: Any) -> list[Tensor]:
        """Make one iteration and return the hypergradient."""
        if self._problem is None or self._problem() is not problem:
            lower, self._upper, self._steps = self._levels(problem)
            self._engine = _engine(lower, self._upper)
            self._problem = weakref.ref(problem)
        for _ in range(self._steps):
            self._engine.global_step += 1
            self._engine.train_step()
        return self._upper.found


def bilevel(kind: str) -> Method:
    """Return the method for a :class:`~benchmarks.problems.Bilevel`."""

    def levels(problem: Bilevel) -> tuple[Level, Level, int]:
        model, outside = problem.model, problem.outside
        inner, outer = problem.inner, problem.outer
        above, weight = problem.hyperparameters, 1.0
        if kind != "neumann":  # whose series has the factor
            weight = problem.lr
        if outside is None:
            outside = nn.ParameterList(above)
        lower = Level(
            "lower",
            _config(kind, problem.lr),
            model,
            problem.weights,
            problem.base,
            lambda: inner(model),
        )
        upper = Level(
            "upper",
            Config(retain_graph=True),
            outside,
            above,
            problem.hyper,
            lambda: weight * outer(model),
        )
        return lower, upper, 1

    return Iteration(levels)


def maml(kind: str) -> MamlMethod:
    """Return the method for a :class:`~benchmarks.maml_tasks.MamlTask`."""

    def levels(task: MamlTask) -> tuple[Level, Level, int]:
        adapted = copy.deepcopy(task.model)
        initial, weights = task.weights, list(adapted.parameters())
        support, query = task.support, task.query
        rate = task.lr * task.steps
        weight = rate if kind in ("darts", "sama") else 1.0

        @torch.no_grad()
        def restart() -> None:
            for tensor, start in zip(weights, initial, strict=True):
                tensor.copy_(start)

        def inner() -> Tensor:
            pairs = zip(weights, initial, strict=True)
            distances = [(tensor - start).square().sum() for tensor, start in pairs]
            bound = torch.stack(distances).sum() / (2 * rate)
            return task_loss(adapted, support) + bound

        lower = Level(
            "lower",
            _config(kind, rate, task.steps),
            adapted,
            weights,
            SGD(weights, lr=task.lr),
            inner,
            restart,
        )
        upper = Level(
            "upper",
            Config(retain_graph=True),
            task.model,
            initial,
            task.optimizer,
            lambda: weight * task_loss(adapted, query),
        )
        return lower, upper, task.steps

    return Iteration(levels)


def _config(kind: str, rate: float, steps: int = 1) -> Config:
    return Config(
        type=kind,
        unroll_steps=steps,
        neumann_alpha=rate,  # Betty's 1 is beyond where the series converges
    )


def _engine(lower: Level, upper: Level) -> Engine:
    get_logger().setLevel(logging.WARNING)
    # Otherwise Betty moves everything to a GPU where there is one.
    strategy = "cpu" if lower.parameters()[0].device.type == "cpu" else "gpu"
    engine = Engine(
        problems=[upper, lower],
        config=EngineConfig(strategy=strategy),
        dependencies={"u2l": {upper: [lower]}, "l2u": {lower: [upper]}},
    )
    engine.train()
    return engine


METHODS: dict[str, Method] = {f"Betty, {kind}": bilevel(kind) for kind in KINDS}
MAML_METHODS: dict[str, MamlMethod] = {f"Betty, {kind}": maml(kind) for kind in KINDS}
