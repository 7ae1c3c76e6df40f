"""MAML on a whole meta-batch of small tasks, and several methods to make one meta-step.

A method is a function of a :class:`MetaBatch`. It makes one meta-step: all tasks are
adapted, the gradient of the mean query loss with respect to the initial weights is
taken, and Adam makes a step. The method returns that gradient.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import higher
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from benchmarks.maml_tasks import apply_gradients
from benchmarks.methods import PLAIN_STEP
from benchmarks.overhead_tasks import SIDE, Batch, Network, make_network
from l2l_evograd import EvoGradMetaOptimizer
from l2l_evograd.experiments.from_learn2learn import l2l


@dataclass(frozen=True)
class MetaBatchConfig:
    """A meta-batch of tasks for a small network.

    The tasks of a perceptron are sines of different amplitudes and phases. Those of
    OmniglotCNN are random images, each in a class of its own.

    Attributes:
        network: the network, the samples of a task and the inner learning rate.
        steps: number of inner steps.
        tasks: number of tasks.
        meta_lr: learning rate of Adam for the initial weights.
    """

    network: Network
    steps: int
    tasks: int = 32
    meta_lr: float = 1e-3

    @property
    def name(self) -> str:
        """Name for tables."""
        plural = "" if self.steps == 1 else "s"
        return (
            f"Batch of {self.tasks} tasks, {self.network.name}, "
            f"{self.steps} step{plural}"
        )


# Finn et al.'s sines, and learn2learn's example maml_omniglot.
SINE = MetaBatchConfig(Network("MLP 1-40-40-1", "mlp", 40, 10, lr=0.01), steps=5)
OMNIGLOT = MetaBatchConfig(Network("OmniglotCNN", "omniglot", 64, 5, lr=0.5), steps=1)


@dataclass
class MetaBatch:
    """A meta-batch and the network whose initial weights are learned.

    Attributes:
        model: the network.
        criterion: loss of outputs and targets.
        support: data of the inner loss, with a leading axis for the tasks.
        query: data of the outer loss, likewise.
        optimizer: optimizer of the initial weights.
        lr: learning rate of the inner steps.
        steps: number of inner steps.
    """

    model: nn.Module
    criterion: Callable[[Any, Any], Tensor]
    support: Batch
    query: Batch
    optimizer: Optimizer
    lr: float
    steps: int

    @property
    def weights(self) -> list[Tensor]:
        """The initial weights."""
        return list(self.model.parameters())

    @property
    def count(self) -> int:
        """The number of tasks."""
        return len(self.support.inputs)

    def tasks(self) -> Iterator[tuple[Batch, Batch]]:
        """Return the support and the query data of each task."""
        for each in zip(*self.support, *self.query, strict=True):
            yield Batch(*each[:2]), Batch(*each[2:])

    def loss(self, model: Callable[[Tensor], Any], batch: Batch) -> Tensor:
        """Return the loss of a batch of one task."""
        return self.criterion(model(batch.inputs), batch.targets)


MetaBatchMethod = Callable[[MetaBatch], list[Tensor]]


def meta_batch(
    config: MetaBatchConfig, device: torch.device, layout: torch.memory_format
) -> MetaBatch:
    """Return the meta-batch; the same configuration always gives the same one."""
    torch.manual_seed(0)
    network = config.network
    model, criterion = make_network(network)
    model.to(device, torch.get_default_dtype(), memory_format=layout)
    shape = (config.tasks, network.samples)
    if network.kind == "mlp":
        amplitude = 0.1 + 4.9 * torch.rand(config.tasks, 1, 1)
        phase = torch.pi * torch.rand(config.tasks, 1, 1)
        points = 10 * torch.rand(2, *shape, 1) - 5
        pairs = [(x, amplitude * torch.sin(x + phase)) for x in points]
    else:
        images = torch.randn(2, *shape, 1, SIDE, SIDE)
        pairs = [(x, torch.arange(network.samples).expand(shape)) for x in images]
    support, query = (Batch(x.to(device), y.to(device)) for x, y in pairs)
    optimizer = Adam(model.parameters(), lr=config.meta_lr)
    return MetaBatch(
        model, criterion, support, query, optimizer, network.lr, config.steps
    )


def training_step_on_queries(batch: MetaBatch) -> list[Tensor]:
    """Make one ordinary training step on the query data of all tasks at once."""
    joined = Batch(*(part.flatten(0, 1) for part in batch.query))
    loss = batch.loss(batch.model, joined)
    return apply_gradients(batch, torch.autograd.grad(loss, batch.weights))


def second_order(batch: MetaBatch) -> list[Tensor]:
    """Make one meta-step through ``higher``, task by task."""
    optimizer = SGD(batch.model.parameters(), lr=batch.lr)
    batch.optimizer.zero_grad()
    for support, query in batch.tasks():
        with higher.innerloop_ctx(
            batch.model, optimizer, copy_initial_weights=False
        ) as (net, inner_optimizer):
            for _ in range(batch.steps):
                inner_optimizer.step(batch.loss(net, support))
            (batch.loss(net, query) / batch.count).backward()
    batch.optimizer.step()
    return _gradients(batch)


def looped(wrapper: Callable[..., Any], first_order: bool) -> MetaBatchMethod:
    """Return a method that runs learn2learn's loop over the tasks.

    Args:
        wrapper: ``MAML``, or a class with the same interface.
        first_order: whether to ignore second derivatives of the inner loss.
    """

    def step(batch: MetaBatch) -> list[Tensor]:
        meta = wrapper(batch.model, batch.lr, first_order=first_order)
        batch.optimizer.zero_grad()
        for support, query in batch.tasks():
            learner = meta.clone()
            for _ in range(batch.steps):
                learner.adapt(batch.loss(learner, support))
            (batch.loss(learner, query) / batch.count).backward()
        batch.optimizer.step()
        return _gradients(batch)

    return step


def at_once(first_order: bool, chunk_size: int | None = None) -> MetaBatchMethod:
    """Return a method that adapts all tasks at once with ``task_losses``.

    Args:
        first_order: whether to ignore second derivatives of the inner loss.
        chunk_size: as in ``task_losses``.
    """

    def step(batch: MetaBatch) -> list[Tensor]:
        meta = EvoGradMetaOptimizer(batch.model, batch.lr, first_order=first_order)
        batch.optimizer.zero_grad()
        losses = meta.task_losses(
            batch.criterion,
            tuple(batch.support),
            tuple(batch.query),
            steps=batch.steps,
            chunk_size=chunk_size,
        )
        losses.mean().backward()
        batch.optimizer.step()
        return _gradients(batch)

    return step


def _gradients(batch: MetaBatch) -> list[Tensor]:
    return [w.grad for w in batch.weights if w.grad is not None]


METHODS: dict[str, MetaBatchMethod] = {
    PLAIN_STEP: training_step_on_queries,
    "learn2learn, second order": looped(l2l.algorithms.MAML, False),
    "learn2learn, first order": looped(l2l.algorithms.MAML, True),
    "second order (higher)": second_order,
    "loop, second order": looped(EvoGradMetaOptimizer, False),
    "loop, first order": looped(EvoGradMetaOptimizer, True),
    "all at once, second order": at_once(False),
    "all at once, first order": at_once(True),
    "8 at once, second order": at_once(False, chunk_size=8),
}
