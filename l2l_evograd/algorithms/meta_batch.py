"""The loop over the tasks of a meta-batch, all tasks at once."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.graph import disable_saved_tensors_hooks

from l2l_evograd.algorithms.tasks import (
    LOOP,
    Pair,
    TaskLoss,
    TasksModel,
    number_of_tasks,
)
from l2l_evograd.checks import NotFiniteError, check_count
from l2l_evograd.seeds import draw_seed
from l2l_evograd.updates.learning_rates import matched
from l2l_evograd.updates.situation import Situation

if TYPE_CHECKING:  # evograd.py imports this file
    from l2l_evograd.algorithms.evograd import EvoGradMetaOptimizer

# What torch's error says when a model saves tensors otherwise than vmap can.
_NO_CHECKPOINTS = (
    "the model uses activation checkpoints, which torch.func.vmap cannot compute "
    "again; chunk_size saves memory as well"
)


def adapt_tasks(
    meta: "EvoGradMetaOptimizer",
    inner_loss: TaskLoss,
    outer_loss: TaskLoss,
    support: Pair,
    query: Pair,
    steps: int,
    chunk_size: int | None = None,
) -> tuple[Tensor, Any]:
    """Adapt to all tasks at once; return the query losses and the query outputs.

    Args:
        meta: the algorithm.
        inner_loss: the loss of the inner steps.
        outer_loss: the loss of the query.
        support: as for :meth:`EvoGradMetaOptimizer.task_losses`, and so are the others.
        query: likewise.
        steps: likewise.
        chunk_size: likewise.
    """
    tasks = number_of_tasks(support, query)
    _check_ordinary(meta)
    steps = check_count(steps, "steps", least=0)
    size = tasks if chunk_size is None else check_count(chunk_size, "chunk_size")
    before = meta.generator.get_state()
    try:
        return _adapt_all(
            meta, inner_loss, outer_loss, support, query, tasks, steps, size
        )
    except Exception:
        meta.generator.set_state(before)
        raise


def _adapt_all(
    meta: "EvoGradMetaOptimizer",
    inner_loss: TaskLoss,
    outer_loss: TaskLoss,
    support: Pair,
    query: Pair,
    tasks: int,
    steps: int,
    size: int,
) -> tuple[Tensor, Any]:
    """Adapt to the tasks, ``size`` at a time."""
    random = meta._update.estimator.random
    seeds = [
        [draw_seed(meta.generator) if random else 0 for _ in range(steps)]
        for _ in range(tasks)
    ]
    found = []
    for start in range(0, tasks, size):
        part = slice(start, start + size)
        found.append(
            _adapt_chunk(
                meta.clone(),
                inner_loss,
                outer_loss,
                (support[0][part], support[1][part]),
                (query[0][part], query[1][part]),
                list(zip(*seeds[part], strict=True)),
            )
        )
    if len(found) == 1:
        return found[0]
    losses, outputs = zip(*found, strict=True)
    return torch.cat(losses), outputs


def _check_ordinary(meta: "EvoGradMetaOptimizer") -> None:
    """Raise an error if calls of learners do more than call the model."""
    own = {name for kind in type(meta).__mro__ for name in _owned(kind)}
    if own or meta._forward_hooks or meta._forward_pre_hooks or meta._backward_hooks:
        what = " and ".join(sorted(own)) or "hooks"
        raise TypeError(
            f"expected an EvoGradMetaOptimizer with its own forward and adapt and "
            f"without hooks, got one with other {what}, which a computation of all "
            f"tasks at once does not call: {LOOP}"
        )


def _owned(kind: type) -> set[str]:
    if kind.__module__.startswith(("l2l_evograd.", "torch.")):
        return set()
    return {"forward", "adapt"} & set(vars(kind))


def _adapt_chunk(
    learner: "EvoGradMetaOptimizer",
    inner_loss: TaskLoss,
    outer_loss: TaskLoss,
    support: Pair,
    query: Pair,
    seeds: list[tuple[int, ...]],
) -> tuple[Tensor, Any]:
    """Adapt to some tasks; ``seeds`` holds one seed for each task, for every step."""
    own = learner._weights()
    tasks = len(support[0])
    model = TasksModel(learner.module, own, tasks)
    params = [param.expand(tasks, *param.shape) for param in own]
    for step_seeds in seeds:
        with (
            learner._recording(model.renewed_buffers()),
            learner._kernels(),
            disable_saved_tensors_hooks(_NO_CHECKPOINTS),
        ):
            losses, _ = model.losses(inner_loss, params, support)
        now = Situation(
            value=losses.sum(),
            each=losses,
            params=params,
            names=learner._names,
            lr=matched(learner.lr, learner._names, own),
            first_order=learner.first_order,
            allow_unused=learner.allow_unused,
            seed=step_seeds,
        )
        try:
            params = learner._moved(now)
        except NotFiniteError:
            learner._watch.skip()  # the step of all tasks
    model.renewed_buffers()
    with learner._kernels():
        return model.losses(outer_loss, params, query)
