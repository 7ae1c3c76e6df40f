"""MAML in the style of mini-ImageNet, with meta-validation during meta-training.

Shows:   a script like learn2learn's maml_miniimagenet.py: CNN4 with batch norms on the
         tasks of get_tasksets(). Two lines change, the second only to use data that
         need no download:

             maml = l2l.algorithms.MAML(model, lr=fast_lr, first_order=first_order)
             maml = EvoGradMetaOptimizer(model, lr=fast_lr, first_order=first_order)

             tasksets = l2l.vision.benchmarks.get_tasksets("mini-imagenet", ...)
             tasksets = get_tasksets("print", ...)

         The validation and test tasks do not call backward(). The memory of their
         graphs is freed without it.
Data:    a built-in domain, or a folder ROOT/NAME with base.json, val.json, novel.json.
Prints:  error and accuracy in meta-training and meta-validation, then on meta-test
         tasks.
Time:    about forty seconds on one core. Needs the extra `fewshot`.

    python examples/learn2learn/maml_miniimagenet.py --name sketch
    python examples/learn2learn/maml_miniimagenet.py --root FOLDER --name NAME
"""

import argparse
import random
from typing import Any

import learn2learn as l2l
import numpy as np
import torch
from torch import Tensor, nn

from l2l_evograd import EvoGradMetaOptimizer
from l2l_evograd.experiments.crossdomain.data.tasksets import get_tasksets

WAYS, SHOTS, META_BATCH_SIZE, ADAPTATION_STEPS = 5, 5, 2, 3
FAST_LR, META_LR = 0.1, 0.003
Figures = dict[str, list[tuple[float, float]]]


def fast_adapt(batch: Any, learner: Any, loss: nn.Module) -> tuple[Tensor, Tensor]:
    """Adapt to every other image of a task, evaluate on the rest."""
    data, labels = batch
    adaptation_indices = np.zeros(data.size(0), dtype=bool)
    adaptation_indices[np.arange(SHOTS * WAYS) * 2] = True
    evaluation_indices = ~adaptation_indices
    for _ in range(ADAPTATION_STEPS):
        error = loss(learner(data[adaptation_indices]), labels[adaptation_indices])
        learner.adapt(error)
    predictions = learner(data[evaluation_indices])
    valid_error = loss(predictions, labels[evaluation_indices])
    right = predictions.argmax(dim=1) == labels[evaluation_indices]
    return valid_error, right.sum().float() / right.size(0)


def train(
    method: Any, tasksets: Any, steps: int, test_tasks: int, first_order: bool = False
) -> Figures:
    """Return error and accuracy of each task of training, validation and test."""
    random.seed(0)
    torch.manual_seed(0)
    hidden, side = 16, tasksets.train.sample()[0].size(-1)
    embedding = hidden * (side // 16) ** 2
    model = l2l.vision.models.CNN4(WAYS, hidden, embedding_size=embedding)
    maml = method(model, lr=FAST_LR, first_order=first_order)
    optimizer = torch.optim.Adam(maml.parameters(), META_LR)
    loss = nn.CrossEntropyLoss(reduction="mean")
    figures: Figures = {"training": [], "validation": [], "test": []}
    for _ in range(steps):
        optimizer.zero_grad()
        for _ in range(META_BATCH_SIZE):
            learner = maml.clone()
            error, accuracy = fast_adapt(tasksets.train.sample(), learner, loss)
            error.backward()
            figures["training"].append((error.item(), accuracy.item()))

            learner = maml.clone()
            error, accuracy = fast_adapt(tasksets.validation.sample(), learner, loss)
            figures["validation"].append((error.item(), accuracy.item()))
        for p in maml.parameters():
            p.grad.data.mul_(1.0 / META_BATCH_SIZE)
        optimizer.step()
    for _ in range(test_tasks):
        learner = maml.clone()
        error, accuracy = fast_adapt(tasksets.test.sample(), learner, loss)
        figures["test"].append((error.item(), accuracy.item()))
    return figures


def main(
    name: str = "print", root: str = "~/data", steps: int = 60, test_tasks: int = 50
) -> Figures:
    """Train on the domain, print and return the figures."""
    tasksets = get_tasksets(name, WAYS, 2 * SHOTS, WAYS, 2 * SHOTS, root=root)
    figures = train(EvoGradMetaOptimizer, tasksets, steps, test_tasks)
    for kind in ("training", "validation"):
        for part in np.array_split(figures[kind], 3):
            error, accuracy = part.mean(axis=0)
            print(f"meta-{kind:12} error {error:.3f}, accuracy {accuracy:.3f}")
    error, accuracy = np.mean(figures["test"], axis=0)
    print(f"{'meta-test':17} error {error:.3f}, accuracy {accuracy:.3f}")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="print")
    parser.add_argument("--root", default="~/data")
    parser.add_argument("--steps", type=int, default=60)
    main(**vars(parser.parse_args()))
