"""MAML on one task of random images, and several methods to make one meta-step.

A method is a function of a :class:`MamlTask`. It makes one meta-step: T inner steps on
the support images, the gradient of the query loss with respect to the initial weights,
and a step of the optimizer. It returns that gradient.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import higher
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, Optimizer

from benchmarks.methods import PLAIN_STEP
from l2l_evograd import EvoGrad, EvoGradMetaOptimizer
from l2l_evograd.experiments.from_learn2learn import l2l


class Batch(NamedTuple):
    """Images and their classes."""

    images: Tensor
    classes: Tensor


@dataclass
class MamlTask:
    """A task and the network whose initial weights are learned.

    Attributes:
        model: the network.
        support: batch of the inner steps.
        query: batch of the outer loss.
        optimizer: optimizer of the initial weights.
        lr: learning rate of the inner steps.
        steps: number T of inner steps.
    """

    model: nn.Module
    support: Batch
    query: Batch
    optimizer: Optimizer
    lr: float
    steps: int

    @property
    def weights(self) -> list[Tensor]:
        """The initial weights."""
        return list(self.model.parameters())


MamlMethod = Callable[[MamlTask], list[Tensor]]


@dataclass(frozen=True)
class MamlConfig:
    """One task for learn2learn's CNN4.

    Attributes:
        steps: number of inner steps.
        ways: number of classes.
        shots: support images of a class.
        queries: query images of a class.
        image_size: side of the images in pixels.
        hidden: channels of the network.
        lr: learning rate of the inner steps.
        meta_lr: learning rate of Adam for the initial weights.
    """

    steps: int = 1
    ways: int = 5
    shots: int = 5
    queries: int = 15
    image_size: int = 84
    hidden: int = 64
    lr: float = 0.01
    meta_lr: float = 1e-3


def maml_task(
    config: MamlConfig, device: torch.device, layout: torch.memory_format
) -> MamlTask:
    """Return the task; the same configuration always gives the same task."""
    torch.manual_seed(0)
    pixels = (config.image_size // 16) ** 2  # after four poolings by 2
    model = l2l.vision.models.CNN4(
        config.ways, config.hidden, embedding_size=config.hidden * pixels
    )
    # CNN4 draws a part of its weights with NumPy, which the seed above does not reach.
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.reset_parameters()
    model.to(device, torch.get_default_dtype(), memory_format=layout)
    support, query = (
        _batch(config, each, device) for each in (config.shots, config.queries)
    )
    optimizer = Adam(model.parameters(), lr=config.meta_lr)
    return MamlTask(model, support, query, optimizer, config.lr, config.steps)


def task_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Return the cross-entropy of a batch."""
    return F.cross_entropy(model(batch.images), batch.classes)


class Learned(Protocol):
    """A problem whose initial weights are learned by an optimizer.

    Attributes:
        optimizer: optimizer of the initial weights.
    """

    optimizer: Optimizer

    @property
    def weights(self) -> list[Tensor]:
        """The initial weights."""
        ...


def apply_gradients(problem: Learned, gradients: Sequence[Tensor]) -> list[Tensor]:
    """Make the step of the initial weights, and return the gradients detached."""
    found = [slope.detach() for slope in gradients]
    for weight, slope in zip(problem.weights, found, strict=True):
        weight.grad = slope
    problem.optimizer.step()
    return found


def training_step_on_queries(task: MamlTask) -> list[Tensor]:
    """Make one ordinary training step on the query images."""
    loss = task_loss(task.model, task.query)
    return apply_gradients(task, torch.autograd.grad(loss, task.weights))


def second_order(task: MamlTask) -> list[Tensor]:
    """Make one meta-step through ``higher``."""
    optimizer = SGD(task.model.parameters(), lr=task.lr)
    with higher.innerloop_ctx(task.model, optimizer, copy_initial_weights=False) as (
        net,
        inner_optimizer,
    ):
        for _ in range(task.steps):
            inner_optimizer.step(task_loss(net, task.support))
        loss = task_loss(net, task.query)
        found = torch.autograd.grad(loss, task.weights)
    return apply_gradients(task, found)


def adapted(wrapper: Callable[[MamlTask], nn.Module]) -> MamlMethod:
    """Return a method that runs learn2learn's loop: clone, adapt, backward.

    Args:
        wrapper: wraps the network of a task in a module with ``clone()``, whose clones
            have ``adapt(loss)``.
    """

    def step(task: MamlTask) -> list[Tensor]:
        learner = wrapper(task).clone()
        for _ in range(task.steps):
            learner.adapt(task_loss(learner, task.support))
        task.optimizer.zero_grad()
        task_loss(learner, task.query).backward()
        task.optimizer.step()
        return [weight.grad for weight in task.weights]

    return step


def _learn2learn(first_order: bool) -> MamlMethod:
    return adapted(
        lambda task: l2l.algorithms.MAML(task.model, task.lr, first_order=first_order)
    )


def _ours(first_order: bool, memory: str = "auto") -> MamlMethod:
    return adapted(
        lambda task: EvoGradMetaOptimizer(
            task.model, task.lr, first_order=first_order, memory=memory
        )
    )


def _evolution(candidates: int) -> MamlMethod:
    def wrapper(task: MamlTask) -> nn.Module:
        return EvoGradMetaOptimizer(
            task.model,
            task.lr,
            update="evolution",
            estimator=EvoGrad(candidates),
            check="never",  # as for bilevel problems
        )

    return adapted(wrapper)


def _batch(config: MamlConfig, each: int, device: torch.device) -> Batch:
    """Return random images, ordered by class."""
    side = config.image_size
    classes = torch.arange(config.ways).repeat_interleave(each)
    images = torch.randn(len(classes), 3, side, side)
    return Batch(images.to(device), classes.to(device))


METHODS: dict[str, MamlMethod] = {
    PLAIN_STEP: training_step_on_queries,
    "second order (higher)": second_order,
    "learn2learn, second order": _learn2learn(first_order=False),
    "learn2learn, first order": _learn2learn(first_order=True),
    "exact": _ours(first_order=False),
    "exact, graphs kept": _ours(first_order=False, memory="graph"),
    "exact, computed again": _ours(first_order=False, memory="recompute"),
    "first order": _ours(first_order=True),
    "Algorithm 1, K = 2": _evolution(2),
    "Algorithm 1, K = 8": _evolution(8),
    "Algorithm 1, K = 32": _evolution(32),
}
