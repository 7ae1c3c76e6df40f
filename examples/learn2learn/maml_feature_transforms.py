"""MAML with learned feature-wise transformation over seen and unseen domains.

Shows:   MAML with hyperparameters. CNN4 has feature-wise transformation layers, whose
         strengths are λ. A learner adapts to images of one domain with the layers on.
         Its loss is computed on images of the same classes in another domain with the
         layers off. One backward() computes the gradients of λ and of the initial
         weights. The line that changes:

             maml = l2l.algorithms.MAML(model, lr=FAST_LR)
             maml = EvoGradMetaOptimizer(
                 model, lr=FAST_LR, hyperparameters=feature_transforms(model)
             )
Prints:  error and accuracy on the pseudo-unseen domain, how far the strengths moved,
         and the accuracy on new classes of an unseen domain.
Time:    about forty seconds on one core. Needs the extra `fewshot`.

    python examples/learn2learn/maml_feature_transforms.py --steps 150
"""

import argparse
import random
from typing import Any

import learn2learn as l2l
import numpy as np
import torch
from learn2learn.data import transforms as t
from torch import Tensor, nn

from l2l_evograd import EvoGradMetaOptimizer
from l2l_evograd.experiments.crossdomain.data.domains import built_in_domains
from l2l_evograd.layers import add_feature_transforms, feature_transforms
from l2l_evograd.layers import feature_transforms_switched as switched

WAYS, SHOTS, META_BATCH_SIZE, ADAPTATION_STEPS = 5, 5, 2, 3
FAST_LR, META_LR, SIZE, HIDDEN = 0.1, 0.01, 20, 16
SEEN, UNSEEN = ("print", "sketch"), ("texture",)
Outcome = tuple[list[tuple[float, float]], list[float], Tensor]


class InDomains(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Images in several domains; each item has the shape (domains, 3, H, W)."""

    def __init__(self, names: tuple[str, ...], split: str) -> None:
        domains = built_in_domains(SIZE, images_per_class=20)
        self.parts = [domains[name].splits[split] for name in names]

    def __len__(self) -> int:
        return len(self.parts[0])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        images = torch.stack([part[index][0] for part in self.parts])
        return images, self.parts[0].labels[index]


def make_tasks(names: tuple[str, ...], split: str) -> l2l.data.Taskset:
    """Return tasks whose items hold an image of each of these domains."""
    data = l2l.data.MetaDataset(InDomains(names, split))
    steps = [t.NWays(data, WAYS), t.KShots(data, 2 * SHOTS), t.LoadData(data)]
    steps += [t.RemapLabels(data), t.ConsecutiveLabels(data)]
    return l2l.data.Taskset(data, task_transforms=steps, num_tasks=-1)


def fast_adapt(
    batch: Any, learner: Any, loss: nn.Module, seen: int, unseen: int
) -> tuple[Tensor, Tensor]:
    """Adapt in the seen domain and evaluate in the unseen one.

    The layers are on during adaptation if the two domains differ.
    """
    data, labels = batch
    adaptation_indices = np.zeros(data.size(0), dtype=bool)
    adaptation_indices[np.arange(SHOTS * WAYS) * 2] = True
    evaluation_indices = ~adaptation_indices
    with switched(learner, on=seen != unseen):
        for _ in range(ADAPTATION_STEPS):
            predictions = learner(data[adaptation_indices, seen])
            learner.adapt(loss(predictions, labels[adaptation_indices]))
    with switched(learner, on=False):
        predictions = learner(data[evaluation_indices, unseen])
    right = predictions.argmax(dim=1) == labels[evaluation_indices]
    return loss(predictions, labels[evaluation_indices]), right.float().mean()


def make_model() -> nn.Module:
    """Return CNN4 with a feature-wise transformation layer after each norm."""
    model = l2l.vision.models.CNN4(WAYS, HIDDEN, embedding_size=HIDDEN)
    return add_feature_transforms(model)


def main(steps: int = 150, test_tasks: int = 50) -> Outcome:
    """Train on the seen domains, print and return the figures."""
    random.seed(0)
    torch.manual_seed(0)
    training, test = make_tasks(SEEN, "base"), make_tasks(UNSEEN, "novel")
    model = make_model()
    strengths = list(feature_transforms(model).parameters())
    initial = torch.cat([s.detach().flatten() for s in strengths])
    maml = EvoGradMetaOptimizer(
        model, lr=FAST_LR, hyperparameters=feature_transforms(model)
    )
    optimizer = torch.optim.Adam(maml.parameters(), META_LR)
    loss, figures = nn.CrossEntropyLoss(), []
    for _ in range(steps):
        optimizer.zero_grad()
        for _ in range(META_BATCH_SIZE):
            pair = random.sample(range(len(SEEN)), 2)
            batch, learner = training.sample(), maml.clone()
            error, accuracy = fast_adapt(batch, learner, loss, *pair)
            error.backward()
            figures.append((error.item(), accuracy.item()))
        for p in maml.parameters():
            p.grad.data.mul_(1.0 / META_BATCH_SIZE)
        optimizer.step()
    tests = [test.sample() for _ in range(test_tasks)]
    adapted = [fast_adapt(task, maml.clone(), loss, 0, 0) for task in tests]
    tested = [accuracy.item() for _, accuracy in adapted]
    moved = torch.cat([s.detach().flatten() for s in strengths]) - initial
    for part in np.array_split(figures, 4):
        error, accuracy = part.mean(axis=0)
        print(f"on another domain   error {error:.3f}, accuracy {accuracy:.3f}")
    print(f"strengths           moved by {moved.abs().mean():.3f} on average")
    print(f"{UNSEEN[0]!r}, new classes: accuracy {np.mean(tested):.3f}")
    return figures, tested, moved


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=150)
    main(parser.parse_args().steps)
