"""WarpGrad in a MAML script: layers that warp the gradients of adaptation.

Shows:   a script like learn2learn's MAML on miniImageNet, with get_tasksets and CNN4.
         The lines that change:

             maml = l2l.algorithms.MAML(model, lr=lr)
             maml = WarpGrad(add_warp_layers(model), lr=lr, init="fomaml")

         and the query loss moves into the loop over the inner steps, because it is
         taken after every step. The last one also moves the initial weights.
Prints:  query loss and accuracy of training, and accuracy on the test classes, with the
         warp layers as they were learned and with the identity in their place.
Time:    about forty seconds on one core. Needs the extra `fewshot`.

    python examples/learn2learn/warpgrad.py --meta-iterations 40
"""

import argparse
from typing import Any

import learn2learn as l2l
import torch
from torch import nn

from l2l_evograd import WarpGrad, add_warp_layers, warp_layers
from l2l_evograd.experiments.crossdomain.data.tasksets import get_tasksets

WAYS, SHOTS, QUERIES = 5, 1, 5


def split(task: Any) -> tuple[Any, Any]:
    """Return support and query; a task has the images of each class side by side."""
    data, labels = task
    is_support = torch.arange(len(labels)) % (SHOTS + QUERIES) < SHOTS
    return (data[is_support], labels[is_support]), (
        data[~is_support],
        labels[~is_support],
    )


def evaluate(maml: WarpGrad, taskset: Any, tasks: int, steps: int) -> float:
    """Return the accuracy after adaptation to tasks of new classes."""
    right = 0.0
    for _ in range(tasks):
        (x, y), (x_query, y_query) = split(taskset.sample())
        learner = maml.clone(first_order=True)
        for _ in range(steps):
            learner.adapt(nn.functional.cross_entropy(learner(x), y))
        with torch.no_grad():
            right += (learner(x_query).argmax(1) == y_query).float().mean().item()
    return right / tasks


def main(
    meta_iterations: int = 60,
    meta_batch_size: int = 4,
    adaptation_steps: int = 3,
    lr: float = 0.2,
    meta_lr: float = 0.005,
    test_tasks: int = 40,
    seed: int = 0,
) -> dict[str, float]:
    """Train, print and return the accuracies."""
    torch.manual_seed(seed)
    tasksets = get_tasksets(
        "texture",
        train_ways=WAYS,
        train_samples=SHOTS + QUERIES,
        test_ways=WAYS,
        test_samples=SHOTS + QUERIES,
        image_size=20,
    )
    model = l2l.vision.models.CNN4(WAYS, hidden_size=16, embedding_size=16)
    maml = WarpGrad(add_warp_layers(model), lr=lr, init="fomaml")
    optimizer = torch.optim.Adam(maml.parameters(), meta_lr)
    loss = nn.CrossEntropyLoss()
    for iteration in range(meta_iterations):
        optimizer.zero_grad()
        error = 0.0
        for _ in range(meta_batch_size):
            (x, y), (x_query, y_query) = split(tasksets.train.sample())
            learner = maml.clone()
            for step in range(adaptation_steps):
                learner.adapt(loss(learner(x), y))
                query = loss(learner(x_query), y_query)
                scaled = query / adaptation_steps  # the mean over the steps
                if step == adaptation_steps - 1:
                    scaled = scaled + learner.init_loss(query)
                (scaled / meta_batch_size).backward()
            error += query.item() / meta_batch_size
        optimizer.step()
        if (iteration + 1) % 20 == 0:
            print(f"iteration {iteration + 1}: query loss {error:.3f}")
    warped = evaluate(maml, tasksets.test, test_tasks, adaptation_steps)
    fresh = add_warp_layers(l2l.vision.models.CNN4(WAYS, hidden_size=16))
    for layer, identity in zip(warp_layers(model), warp_layers(fresh), strict=True):
        layer.load_state_dict(identity.state_dict())
    plain = evaluate(maml, tasksets.test, test_tasks, adaptation_steps)
    print(f"test accuracy {warped:.1%}; without the learned warp {plain:.1%}")
    return {"warped": warped, "plain": plain}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--meta-iterations", type=int, default=60)
    parser.add_argument("--meta-batch-size", type=int, default=4)
    parser.add_argument("--adaptation-steps", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.2)
    parser.add_argument("--meta-lr", type=float, default=0.005)
    parser.add_argument("--test-tasks", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
