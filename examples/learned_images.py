"""Ten training images, one for each digit, learned through whole training runs.

Shows:   reversible_sgd() with 7,840 hyperparameters inside the inner loss: the pixels
         of ten images for a linear classifier (Maclaurin et al., ICML 2015, figure 9).
Prints:  loss and error on held-out digits after training on them, on random digits and
         on class means, from fresh weights: mean ± standard deviation. Saves a picture.
Time:    about 15 seconds on one core. Needs the extra `fewshot`.

    python examples/learned_images.py --data FOLDER_OF_MNIST
"""

import argparse
from functools import partial
from pathlib import Path
from statistics import fmean, stdev

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import cross_entropy

from l2l_evograd.data.digits import SIDE, Digits, built_in_digits, read_digits
from l2l_evograd.experiments import pictures
from l2l_evograd.unroll import reversible_sgd, run_sgd

SGD = {"lr": 1.0, "momentum": 0.9, "dampening": True, "steps": 40}
LABELS, L2, PICTURE = torch.arange(10), 0.01, Path("learned_images.png")


def loss(params: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of a linear classifier, and its L2 term."""
    penalty = sum(weight.square().sum() for weight in params.values())
    return cross_entropy(images @ params["w"] + params["b"], labels) + L2 * penalty


def initial_weights(seed: int) -> dict[str, Tensor]:
    """Return small random weights."""
    drawn = torch.randn(785, 10, generator=torch.Generator().manual_seed(seed)) / 54.6
    return {"w": drawn[1:], "b": drawn[0]}


def train(mode, images: Tensor, x: Tensor, y: Tensor, seed: int):
    """Train on ten images; the outer loss is that on x and y."""
    inner, outer = partial(loss, labels=LABELS), lambda params, _: loss(params, x, y)
    return mode(inner, outer, initial_weights(seed), images, **SGD)


def test(images: Tensor, x: Tensor, y: Tensor, seed: int) -> tuple[float, float]:
    """Return the loss and the error in % on x and y after training on ten images."""
    params = train(run_sgd, images, x, y, seed).params
    scores = x @ params["w"] + params["b"]
    wrong = (scores.argmax(1) != y).double()
    return float(cross_entropy(scores, y)), 100 * float(wrong.mean())


def draw(rows: dict[str, Tensor], path: Path) -> None:
    """Draw the ten images of each kind in a row under their title."""
    figure = Figure(figsize=(7, 0.95 * len(rows)), layout="constrained")
    for part, title in zip(figure.subfigures(len(rows)), rows, strict=True):
        part.suptitle(title, fontsize=8, x=0.01, ha="left")
        for axes, image in zip(part.subplots(1, 10), rows[title], strict=True):
            most = float(image.abs().max())
            axes.imshow(image.view(SIDE, SIDE), cmap="RdBu_r", vmin=-most, vmax=most)
            axes.set_axis_off()
    pictures.save(figure, path)


def main(digits: Digits, steps: int = 20, seeds: int = 3, path: Path = PICTURE):
    """Learn, test and draw; return losses and errors by kind of images."""
    pixels, labels, cut = digits.images.flatten(1), digits.labels, len(digits) * 4 // 5
    pixels = pixels - pixels[:cut].mean(0)
    x, y, held_out = pixels[:cut], labels[:cut], (pixels[cut:], labels[cut:])
    classes = [x[y == label] for label in LABELS]
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(seeds):
        torch.manual_seed(seed)
        images = 0.01 * torch.randn(10, SIDE**2)
        some = [own[torch.randint(len(own), ())] for own in classes]
        rows = {"noise, before learning": images, "random digits": torch.stack(some)}
        rows["class means"] = torch.stack([own.mean(0) for own in classes])
        for _ in range(steps):
            images = images - train(reversible_sgd, images, x, y, seed).gradients
        rows["learned"] = images
        for name, ten in rows.items():
            found.setdefault(name, []).append(test(ten, *held_out, 100 + seed))
    titled = {}
    for name, own in found.items():
        a, b, c, d = (f(v) for v in zip(*own, strict=True) for f in (fmean, stdev))
        title = f"{name}: held-out loss {a:.3f} ± {b:.3f}, error {c:.1f} ± {d:.1f} %"
        titled[title] = rows[name]
    print(*titled, sep="\n")
    draw(titled, path)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, help="folder with MNIST's files")
    data = parser.parse_args().data
    main((read_digits(data) if data else built_in_digits()).train)
