"""One iteration by Betty with each of its methods: darts, sama, neumann and cg.

Betty makes the step of θ first. It then makes the step of λ along a hypergradient at
the new θ, which it treats as an optimum of the inner loss. If λ is inside the model,
the module of the upper problem is a list of those parameters. For MAML the lower
problem is that of implicit MAML: it starts at the initial weights θ₀, and its loss
contains ‖θ − θ₀‖²/(2ηT).

darts and sama replace the inverse Hessian by the identity, while a gradient step has η
there. Their outer loss is therefore multiplied by η. For bilevel problems, the outer
loss of cg, which makes one iteration, is multiplied by η as well. Without the factor, λ
would move so far that the losses are no longer finite.

Each evaluation of a loss draws new noise and updates the buffers, as Betty does by
default.
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
from benchmarks.methods import BilevelMethod
from benchmarks.problems import Bilevel

KINDS = ("darts", "sama", "neumann", "cg")


class Level(ImplicitProblem):
    """One level of a bilevel problem, with a loss that holds its own data.

    Args:
        name: ``"lower"`` or ``"upper"``.
        config: Betty's configuration of the level.
        module: module that Betty moves to a device and switches to training mode.
        tensors: parameters that this level learns.
        optimizer: optimizer of the parameters; Betty makes a new one of the same class
            with the same options.
        loss: function without arguments that returns the loss.
        restart: function that Betty calls before each series of lower steps, or None.

    Attributes:
        found: gradients of the latest step of the upper level.
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
        """Return nothing, because the loss holds its own data."""

    def training_step(self, batch: None) -> Tensor:
        """Return the loss."""
        return self._loss()

    def parameters(self) -> list[Tensor]:
        """Return the parameters that this level learns."""
        return list(self._tensors)

    def trainable_parameters(self) -> list[Tensor]:
        """Return the parameters that this level learns."""
        return list(self._tensors)

    def on_inner_loop_start(self) -> None:
        """Call ``restart``, which resets θ to the start of the inner loop."""
        if self._restart is not None:
            self._restart()

    def grad_callback(self) -> None:
        """Store copies of the gradients of λ, which Betty deletes after the step."""
        if self._name == "upper":
            self.found = [
                torch.zeros_like(tensor) if tensor.grad is None else tensor.grad.clone()
                for tensor in self._tensors
            ]


class Iteration:
    """A method that makes one iteration of Betty's engine.

    The engine is made once for each problem.

    Args:
        levels: function that returns, for a problem, its lower level, its upper level
            and the number of lower steps.
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


def bilevel(kind: str) -> BilevelMethod:
    """Return the method ``kind`` for a :class:`~benchmarks.problems.Bilevel`."""

    def levels(problem: Bilevel) -> tuple[Level, Level, int]:
        model, outside = problem.model, problem.outside
        inner, outer = problem.inner, problem.outer
        above, weight = problem.hyperparameters, 1.0
        if kind != "neumann":  # the series of neumann contains the factor η
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
    """Return the method ``kind`` for a :class:`~benchmarks.maml_tasks.MamlTask`."""

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
        neumann_alpha=rate,  # the series diverges with Betty's default of 1
    )


def _engine(lower: Level, upper: Level) -> Engine:
    get_logger().setLevel(logging.WARNING)
    # By default Betty moves everything to a GPU if there is one.
    strategy = "cpu" if lower.parameters()[0].device.type == "cpu" else "gpu"
    engine = Engine(
        problems=[upper, lower],
        config=EngineConfig(strategy=strategy),
        dependencies={"u2l": {upper: [lower]}, "l2u": {lower: [upper]}},
    )
    engine.train()
    return engine


METHODS: dict[str, BilevelMethod] = {f"Betty, {kind}": bilevel(kind) for kind in KINDS}
MAML_METHODS: dict[str, MamlMethod] = {f"Betty, {kind}": maml(kind) for kind in KINDS}
