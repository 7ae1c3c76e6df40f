"""Federated averaging whose clients learn the rates of their weights by ARUBA.

Shows:   ARUBA in rounds of clients, each with a style of drawing and 4 of 10 classes.
         SGD with lr=1 on ``init_loss`` makes the average of the clients' weights.
Prints:  accuracy on held-out clients after one pass over their few images, without and
         with adaptation, mean ± standard error over seeds. All training begins at 0.1.
Time:    about 50 seconds on one core. Needs the extra `fewshot`.

    python examples/federated.py
"""

from collections.abc import Iterator
from statistics import fmean, stdev

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from l2l_evograd import ARUBA
from l2l_evograd.data.glyphs import STYLES, GlyphSplit

GLYPHS, OWN, TRAIN, TEST, BATCH, SIDE = 10, 4, 6, 6, 6, 16
EACH, COPIES = TRAIN + TEST, 120  # images of a class: of a client, of a style
SPLITS = [GlyphSplit(style, "base", SIDE, 0, COPIES) for style in STYLES]
Client = tuple[Tensor, Tensor, Tensor, Tensor]


def make_clients(count: int, seed: int) -> tuple[list[Client], list[Client]]:
    """Return clients for training and for the test; no two share an image."""
    generator = torch.Generator().manual_seed(seed)
    clients = []
    for number in range(2 * count):
        style, turn = number % len(SPLITS), number // len(SPLITS)
        labels = torch.randperm(GLYPHS, generator=generator)[:OWN].repeat(EACH)
        copies = torch.arange(turn * EACH, (turn + 1) * EACH) % COPIES
        places = labels * COPIES + copies.repeat_interleave(OWN)
        images = torch.stack([SPLITS[style].image(int(place)) for place in places])
        pixels, cut = images.float().mean(1) / 128 - 1, OWN * TRAIN
        clients.append((pixels[:cut], labels[:cut], pixels[cut:], labels[cut:]))
    return clients[:count], clients[count:]


def one_pass(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Return the minibatches of a client, in random order."""
    for chosen in torch.randperm(len(labels)).split(BATCH):
        yield images[chosen], labels[chosen]


def train(meta: ARUBA, clients: list[Client], rounds: int, lr: float | None) -> None:
    """Run federated averaging; ``lr`` is a fixed rate, None takes the learned ones."""
    optimizer = torch.optim.SGD(meta.parameters(), lr=1.0)
    for _ in range(rounds):
        chosen = [clients[i] for i in torch.randperm(len(clients))[:10]]
        learners = [meta.clone(lr=lr) for _ in chosen]
        optimizer.zero_grad()
        for learner, (images, labels, *_) in zip(learners, chosen, strict=True):
            for x, y in one_pass(images, labels):
                learner.adapt(cross_entropy(learner(x), y))
            (learner.init_loss() / len(chosen)).backward()
        optimizer.step()
        for learner in learners:  # now the round is over, and the rates may change
            meta.collect(learner)


def test(meta: ARUBA, clients: list[Client], **rate: float) -> float:
    """Return the mean accuracy of clients."""
    right = []
    for images, labels, test_images, test_labels in clients:
        learner = meta.clone(**rate)
        for x, y in one_pass(images, labels):
            learner.adapt(cross_entropy(learner(x), y))
        right.append((learner(test_images).argmax(1) == test_labels).double().mean())
    return float(torch.stack(right).mean())


def main(seeds: int = 3, rounds: int = 60, clients: int = 25) -> dict[str, list[float]]:
    """Train and test all arms; print and return the accuracies by seed."""
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        known, new = make_clients(clients, seed)
        for kind, lr in (("fixed", 0.1), ("one", None), ("coordinate", None)):
            torch.manual_seed(seed)
            layers = nn.Linear(SIDE**2, 64), nn.ReLU(), nn.Linear(64, GLYPHS)
            model = nn.Sequential(nn.Flatten(), *layers)
            meta = ARUBA(model, 0.1, zeta=0.1, rates="one" if lr else kind)
            train(meta, known, rounds, lr)
            arms = {f"fixed {r}": {"lr": r} for r in (0.01, 0.03, 0.1, 0.3)}
            arms["no adaptation"] = {"lr": 1e-9}  # so small that no weight moves
            if lr is None:
                arms = {f"ARUBA, {kind}": {}, f"ARUBA++, {kind}": {"plus": 1.0}}
            for name, rate in arms.items():
                found.setdefault(name, []).append(test(meta, new, **rate))
    for name, own in found.items():
        error = stdev(own) / len(own) ** 0.5 if len(own) > 1 else float("nan")
        print(f"{name:20} {100 * fmean(own):.1f} ± {100 * error:.1f} %")
    return found


if __name__ == "__main__":
    main()
