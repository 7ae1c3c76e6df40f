"""A MAML script for learn2learn in which one line changes.

Shows:   few-shot classification of the built-in glyphs, written for
         l2l.algorithms.MAML. Only the line that makes the wrapper changes:

             maml = l2l.algorithms.MAML(model, lr=FAST_LR)
             maml = EvoGradMetaOptimizer(model, lr=FAST_LR)

         Without named hyperparameters the meta-gradient is that of MAML, so both give
         the same figures for the same seed. Double precision avoids rounding errors.
Prints:  accuracy in meta-training and on meta-test classes, for both wrappers.
Time:    about thirty seconds on one core. Needs the extra `fewshot`.

    python examples/maml_one_line.py --steps 40
"""

import argparse
import random
from collections.abc import Callable
from functools import cache
from typing import Any

import learn2learn as l2l
import numpy as np
import torch
from learn2learn.data import transforms as t
from torch import Tensor, nn

from l2l_evograd import EvoGradMetaOptimizer
from l2l_evograd.experiments.crossdomain.data.domains import built_in_domains

WAYS, SHOTS, META_BATCH_SIZE, ADAPTATION_STEPS = 5, 5, 2, 2
FAST_LR, META_LR = 0.3, 0.01
Figures = tuple[list[float], float]


@cache
def make_tasks(split: str) -> l2l.data.Taskset:
    """Return tasks over the classes of one split of the domain "print"."""
    data = l2l.data.MetaDataset(built_in_domains(image_size=20)["print"].splits[split])
    steps = [t.NWays(data, WAYS), t.KShots(data, 2 * SHOTS), t.LoadData(data)]
    steps += [t.RemapLabels(data), t.ConsecutiveLabels(data)]
    return l2l.data.Taskset(data, task_transforms=steps, num_tasks=-1)


def fast_adapt(batch: Any, learner: Any, loss: nn.Module) -> tuple[Tensor, float]:
    """Adapt to every other image of a task, evaluate on the rest."""
    data, labels = batch[0].double(), batch[1]
    adaptation_indices = np.zeros(data.size(0), dtype=bool)
    adaptation_indices[np.arange(SHOTS * WAYS) * 2] = True
    evaluation_indices = ~adaptation_indices
    for _ in range(ADAPTATION_STEPS):
        predictions = learner(data[adaptation_indices])
        learner.adapt(loss(predictions, labels[adaptation_indices]))
    predictions = learner(data[evaluation_indices])
    evaluation_error = loss(predictions, labels[evaluation_indices])
    right = predictions.argmax(dim=1) == labels[evaluation_indices]
    return evaluation_error, right.double().mean().item()


def train(method: Callable[..., Any], steps: int, test_tasks: int) -> Figures:
    """Return the accuracy of each meta-training iteration and on meta-test tasks."""
    random.seed(0)
    torch.manual_seed(0)
    training, test = make_tasks("base"), make_tasks("novel")
    model = l2l.vision.models.CNN4(WAYS, hidden_size=16, embedding_size=16).double()
    maml = method(model, lr=FAST_LR)
    optimizer = torch.optim.Adam(maml.parameters(), META_LR)
    loss, history = nn.CrossEntropyLoss(), []
    for _ in range(steps):
        optimizer.zero_grad()
        history.append(0.0)
        for _ in range(META_BATCH_SIZE):
            learner = maml.clone()
            evaluation_error, hits = fast_adapt(training.sample(), learner, loss)
            evaluation_error.backward()
            history[-1] += hits / META_BATCH_SIZE
        for p in maml.parameters():
            p.grad.data.mul_(1.0 / META_BATCH_SIZE)
        optimizer.step()
    tested = [fast_adapt(test.sample(), maml.clone(), loss) for _ in range(test_tasks)]
    return history, float(np.mean([hits for _, hits in tested]))


def main(steps: int = 40, test_tasks: int = 20) -> tuple[Figures, Figures]:
    """Run the script both ways and print the figures side by side."""
    theirs = train(l2l.algorithms.MAML, steps, test_tasks)
    ours = train(EvoGradMetaOptimizer, steps, test_tasks)
    print(f"{'accuracy':24}{'MAML':>10}{'one line changed':>20}")
    for first in range(0, steps, 10):
        left, right = (np.mean(h[first : first + 10]) for h in (theirs[0], ours[0]))
        print(f"{f'iterations from {first + 1}':24}{left:10.4f}{right:20.4f}")
    print(f"{'meta-test':24}{theirs[1]:10.4f}{ours[1]:20.4f}")
    return theirs, ours


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=40)
    main(parser.parse_args().steps)
