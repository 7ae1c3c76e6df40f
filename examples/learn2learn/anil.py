"""ANIL: all tasks share the body, and only the head adapts.

Shows:   a script like learn2learn's anil_fc100.py. The body is outside the learner, so
         inner steps do not change it. The meta-optimizer trains it with the loss of the
         adapted head. The line that changes:

             head = l2l.algorithms.MAML(head, lr=FAST_LR, first_order=first_order)
             head = EvoGradMetaOptimizer(head, lr=FAST_LR, first_order=first_order)

         With first_order=False the gradient of the body includes the path through all
         inner steps, as in learn2learn.
Prints:  error and accuracy in meta-training, and on meta-test tasks, there also the
         accuracy before the head adapts.
Time:    about thirty seconds on one core. Needs the extra `fewshot`.

    python examples/learn2learn/anil.py --steps 60
"""

import argparse
import random
from typing import Any

import learn2learn as l2l
import numpy as np
import torch
from torch import nn

from l2l_evograd import EvoGradMetaOptimizer
from l2l_evograd.experiments.crossdomain.data.tasksets import get_tasksets

WAYS, SHOTS, META_BATCH_SIZE, ADAPTATION_STEPS = 5, 5, 4, 5
FAST_LR, META_LR, HIDDEN = 0.1, 0.003, 16
Figures = dict[str, list[tuple[float, ...]]]


def fast_adapt(batch: Any, learner: Any, features: nn.Module, loss: nn.Module) -> Any:
    """Return the error, the accuracy after adaptation and the accuracy before it."""
    data, labels = batch
    data = features(data)
    adaptation_indices = np.zeros(data.size(0), dtype=bool)
    adaptation_indices[np.arange(SHOTS * WAYS) * 2] = True
    evaluation_indices = ~adaptation_indices
    targets = labels[evaluation_indices]
    before = learner(data[evaluation_indices]).argmax(dim=1) == targets
    for _ in range(ADAPTATION_STEPS):
        train_error = loss(
            learner(data[adaptation_indices]), labels[adaptation_indices]
        )
        learner.adapt(train_error)
    predictions = learner(data[evaluation_indices])
    error = loss(predictions, targets)
    after = predictions.argmax(dim=1) == targets
    return error, after.float().mean(), before.float().mean()


def train(
    method: Any, tasksets: Any, steps: int, test_tasks: int, first_order: bool = False
) -> Figures:
    """Return the results of fast_adapt() for the tasks of meta-training and tests."""
    random.seed(0)
    torch.manual_seed(0)
    features = l2l.vision.models.CNN4Backbone(hidden_size=HIDDEN)
    head: Any = nn.Linear(HIDDEN * 4, WAYS)
    head = method(head, lr=FAST_LR, first_order=first_order)
    all_parameters = list(features.parameters()) + list(head.parameters())
    optimizer = torch.optim.Adam(all_parameters, lr=META_LR)
    loss = nn.CrossEntropyLoss(reduction="mean")
    figures: Figures = {"training": [], "test": []}
    for _ in range(steps):
        optimizer.zero_grad()
        for _ in range(META_BATCH_SIZE):
            learner = head.clone()
            outcome = fast_adapt(tasksets.train.sample(), learner, features, loss)
            outcome[0].backward()
            figures["training"].append(tuple(value.item() for value in outcome))
        for p in all_parameters:
            p.grad.data.mul_(1.0 / META_BATCH_SIZE)
        optimizer.step()
    for _ in range(test_tasks):
        outcome = fast_adapt(tasksets.test.sample(), head.clone(), features, loss)
        figures["test"].append(tuple(value.item() for value in outcome))
    return figures


def main(name: str = "print", steps: int = 60, test_tasks: int = 50) -> Figures:
    """Train on a built-in domain of 32 pixels, print and return the figures."""
    tasksets = get_tasksets(name, WAYS, 2 * SHOTS, WAYS, 2 * SHOTS)
    figures = train(EvoGradMetaOptimizer, tasksets, steps, test_tasks)
    for part in np.array_split(figures["training"], 3):
        error, after, _ = part.mean(axis=0)
        print(f"meta-training  error {error:.3f}, accuracy {after:.3f}")
    error, after, before = np.mean(figures["test"], axis=0)
    print(
        f"meta-test      error {error:.3f}, accuracy {after:.3f}, before {before:.3f}"
    )
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="print")
    parser.add_argument("--steps", type=int, default=60)
    main(**vars(parser.parse_args()))
