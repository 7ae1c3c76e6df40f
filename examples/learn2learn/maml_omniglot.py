"""MAML on Omniglot: 5 ways, 5 shots, several adaptation steps, both orders.

Shows:   a script like learn2learn's maml_omniglot.py. The line that changes:

             maml = l2l.algorithms.MAML(model, lr=FAST_LR, first_order=first_order)
             maml = EvoGradMetaOptimizer(model, lr=FAST_LR, first_order=first_order)

         The figures stay the same. With first_order=False, MAML keeps a second-order
         graph for every adaptation step. EvoGradMetaOptimizer does not, so that memory
         hardly grows with the number of steps.
Data:    the built-in glyphs "print"; with --data FOLDER Omniglot's two small background
         sets, as zip files or unpacked. Training uses images_background_small1. The
         test uses the alphabets of images_background_small2 that are not in training.
Prints:  accuracy in meta-training and on meta-test tasks, second and first order.
Time:    about thirty seconds on one core. Needs the extra `fewshot`.

    python examples/learn2learn/maml_omniglot.py --steps 60
"""

import argparse
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import learn2learn as l2l
import numpy as np
import torch
from learn2learn.data import transforms as t
from PIL import Image
from torch import nn
from torchvision.transforms.functional import to_tensor

from l2l_evograd import EvoGradMetaOptimizer
from l2l_evograd.experiments.crossdomain.data.tasksets import get_tasksets

WAYS, SHOTS, META_BATCH_SIZE, TEST_TASKS = 5, 5, 2, 20
FAST_LR, META_LR = 0.4, 0.003
Figures = list[tuple[float, float]]


def read(folder: Path, name: str, without: set[str]) -> tuple[Any, set[str]]:
    """Return a background set without some alphabets, and the alphabets in it."""
    with tempfile.TemporaryDirectory() as unpacked:
        if not (folder / name).is_dir():
            shutil.unpack_archive(folder / f"{name}.zip", unpacked)
            folder = Path(unpacked)
        files = sorted((folder / name).glob("*/*/*.png"))
        files = [file for file in files if file.parts[-3] not in without]
        images = [Image.open(file).convert("L").resize((28, 28)) for file in files]
    characters = sorted({file.parent for file in files})
    labels = torch.tensor([characters.index(file.parent) for file in files])
    pixels = 1 - torch.stack([to_tensor(image) for image in images])
    data = torch.utils.data.TensorDataset(pixels, labels)
    return data, {file.parts[-3] for file in files}


def make_tasks(data: Path | None = None) -> list[l2l.data.Taskset]:
    """Return the tasks of meta-training and those of meta-testing."""
    if data is None:
        sizes = (WAYS, 2 * SHOTS, WAYS, 2 * SHOTS)
        tasksets = get_tasksets("print", *sizes, image_size=28)
        return [tasksets.train, tasksets.test]
    training, alphabets = read(data, "images_background_small1", without=set())
    new, _ = read(data, "images_background_small2", without=alphabets)
    tasks = []
    for dataset in map(l2l.data.MetaDataset, (training, new)):
        steps = [t.NWays(dataset, WAYS), t.KShots(dataset, 2 * SHOTS)]
        steps += [t.LoadData(dataset), t.RemapLabels(dataset)]
        tasks.append(l2l.data.Taskset(dataset, [*steps, t.ConsecutiveLabels(dataset)]))
    return tasks


def fast_adapt(batch: Any, learner: Any, loss: nn.Module, steps: int) -> Any:
    """Adapt to every other image of a task, evaluate on the rest."""
    data, labels = batch
    data = data.mean(dim=1, keepdim=True)  # glyphs come in three equal channels
    adaptation_indices = np.zeros(data.size(0), dtype=bool)
    adaptation_indices[np.arange(SHOTS * WAYS) * 2] = True
    evaluation_indices = ~adaptation_indices
    for _ in range(steps):
        error = loss(learner(data[adaptation_indices]), labels[adaptation_indices])
        learner.adapt(error)
    predictions = learner(data[evaluation_indices])
    right = predictions.argmax(dim=1) == labels[evaluation_indices]
    return loss(predictions, labels[evaluation_indices]), right.float().mean()


def train(
    method: Any, tasks: Any, steps: int, adapt: int, first_order: bool
) -> Figures:
    """Return error and accuracy of each task, first of meta-training, then of tests."""
    random.seed(0)
    torch.manual_seed(0)
    model = l2l.vision.models.OmniglotCNN(WAYS, hidden_size=32)
    maml = method(model, lr=FAST_LR, first_order=first_order)
    optimizer = torch.optim.Adam(maml.parameters(), META_LR)
    loss, figures = nn.CrossEntropyLoss(), []
    for _ in range(steps):
        optimizer.zero_grad()
        for _ in range(META_BATCH_SIZE):
            learner = maml.clone()
            error, accuracy = fast_adapt(tasks[0].sample(), learner, loss, adapt)
            error.backward()
            figures.append((error.item(), accuracy.item()))
        for p in maml.parameters():
            p.grad.data.mul_(1.0 / META_BATCH_SIZE)
        optimizer.step()
    for _ in range(TEST_TASKS):
        error, accuracy = fast_adapt(tasks[1].sample(), maml.clone(), loss, adapt)
        figures.append((error.item(), accuracy.item()))
    return figures


def main(data: Path | None = None, steps: int = 60, adapt: int = 3) -> list[Figures]:
    """Train with both orders, print and return the figures."""
    tasks = make_tasks(data)
    maml = EvoGradMetaOptimizer
    both = [train(maml, tasks, steps, adapt, order) for order in (False, True)]
    accuracy = np.array(both)[..., 1]
    print("accuracy: second order, first order")
    for part in np.array_split(accuracy[:, :-TEST_TASKS], 3, axis=1):
        print("meta-training   {:.3f}   {:.3f}".format(*part.mean(axis=1)))
    print(
        "new characters  {:.3f}   {:.3f}".format(
            *accuracy[:, -TEST_TASKS:].mean(axis=1)
        )
    )
    return both


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--adapt", type=int, default=3)
    main(**vars(parser.parse_args()))
