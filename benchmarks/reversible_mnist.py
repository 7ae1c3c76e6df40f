"""Two experiments of Maclaurin, Duvenaud, Adams, ICML 2015, run again on MNIST.

    python -m benchmarks.reversible_mnist --data FOLDER --json FILE --picture FILE

1. Figures 2 to 7: a learning rate and a momentum for every step and each of 8 groups of
   weights, and the scales of the initial weights, which lower the training loss of a
   perceptron. The outer optimizer is the authors' own variant of Adam.
2. Figure 9: ten training images, learned so that a linear classifier trained on them
   does well on real digits.

FOLDER holds MNIST's test images and labels, 10,000 digits; nothing else is read. What
was learned is used anew with initial weights and batches that were not seen before.
"""

import argparse
import dataclasses
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.measuring import environment
from l2l_evograd.data.digits import SIDE, read_pair
from l2l_evograd.experiments.files import write_json
from l2l_evograd.unroll import reversible_sgd, run_sgd

Weights = dict[str, Tensor]

_SIZES = (SIDE**2, 50, 50, 50, 10)
_LAYERS = range(len(_SIZES) - 1)
_GROUPS = [f"{kind}{layer}" for layer in _LAYERS for kind in ("weights", "biases")]
_META_RATE = 0.04


@dataclasses.dataclass(frozen=True)
class Config:
    """What is learned, with the paper's settings as defaults.

    Attributes:
        held_out: share of the digits to judge the schedule on; the rest is trained on.
        images_held_out: likewise for the learned images.
        steps: number of steps of a training run of the schedule.
        batch: number of digits in a batch.
        iterations: number of outer steps of the schedule.
        images_steps: number of steps of a training run on the ten images.
        images_iterations: number of outer steps of the images.
        seeds: number of times that everything is learned.
        fresh: number of training runs with what was learned.
        threads: number of PyTorch's threads.
    """

    held_out: float = 0.2
    images_held_out: float = 0.1
    steps: int = 100
    batch: int = 200
    iterations: int = 50
    images_steps: int = 40
    images_iterations: int = 20
    seeds: int = 2
    fresh: int = 5
    threads: int = 1


class Split(NamedTuple):
    """Digits to learn from and digits to judge by, minus the mean of the former.

    Attributes:
        x: pixels, shape (N, 784).
        y: classes, shape (N,).
        held_out_x: pixels of those to judge by.
        held_out_y: their classes.
    """

    x: Tensor
    y: Tensor
    held_out_x: Tensor
    held_out_y: Tensor


def split(images: Tensor, labels: Tensor, share: float) -> Split:
    """Divide digits at random, always in the same way.

    Args:
        images: bytes, shape (N, 28, 28).
        labels: shape (N,).
        share: share of those held out.
    """
    # In their files, the first half of the digits is not like the second.
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    x, y = images[order].flatten(1).float() / 255, labels[order].long()
    cut = len(y) - round(share * len(y))
    x = x - x[:cut].mean(0)
    return Split(x[:cut], y[:cut], x[cut:], y[cut:])


class AuthorsAdam:
    """The outer optimizer of the authors' code, which is not quite Adam.

    At step i, from 0 on, with b_i = 1 − 0.9 · 10^(−4 i):

        m ← b_i g + (1 − b_i) m,   s ← 0.01 g² + 0.99 s,
        x ← x − rate · m / (1 − 0.9^(i+1)) / (√(s / (1 − 0.99^(i+1))) + 10^−4).

    So m is the gradient itself after the first step, and still divided by what would
    undo the bias of an average.

    Args:
        tensors: what is learned.
        rate: the step size.
    """

    def __init__(self, tensors: list[Tensor], rate: float) -> None:
        self._tensors = tensors
        self._rate = rate
        self._first = [torch.zeros_like(tensor) for tensor in tensors]
        self._second = [torch.zeros_like(tensor) for tensor in tensors]
        self._done = 0

    def step(self, gradients: list[Tensor]) -> None:
        """Move all tensors."""
        share = 1 - 0.9 * 1e-4**self._done
        self._done += 1
        rows = zip(self._tensors, gradients, self._first, self._second, strict=True)
        for tensor, gradient, first, second in rows:
            first.lerp_(gradient, share)
            second.lerp_(gradient.square(), 0.01)
            bias, bias_of_second = 1 - 0.9**self._done, 1 - 0.99**self._done
            scale = (second / bias_of_second).sqrt() + 1e-4
            tensor -= self._rate * first / bias / scale


def perceptron(params: Weights, x: Tensor) -> Tensor:
    """Return the scores of a perceptron with three hidden layers."""
    for layer in _LAYERS:
        x = x @ params[f"weights{layer}"] + params[f"biases{layer}"]
        x = torch.tanh(x) if layer < _LAYERS[-1] else x
    return x


def draw_weights(generator: torch.Generator) -> Weights:
    """Return normal numbers; the learned scales multiply them."""
    params = {}
    for layer, (before, after) in enumerate(zip(_SIZES, _SIZES[1:], strict=False)):
        params[f"weights{layer}"] = torch.randn(before, after, generator=generator)
        params[f"biases{layer}"] = torch.randn(after, generator=generator)
    return params


def train(
    mode: Callable[..., Any],
    config: Config,
    data: Split,
    learned: list[Tensor],
    seed: int,
) -> Any:
    """Make a training run of the perceptron with new initial weights and batches.

    Args:
        mode: ``reversible_sgd`` or ``run_sgd``.
        config: the settings.
        data: the digits.
        learned: log rates and logits of the momenta, shape (steps, groups), and log
            scales, shape (groups,).
        seed: seed of weights and batches.
    """
    generator = torch.Generator().manual_seed(seed)
    params = draw_weights(generator)
    shape = (config.steps, config.batch)
    batches = torch.randint(len(data.y), shape, generator=generator)

    def loss(params: Weights, _: None, batch: Tensor | slice) -> Tensor:
        return cross_entropy(perceptron(params, data.x[batch]), data.y[batch])

    return mode(
        [partial(loss, batch=batch) for batch in batches],
        partial(loss, batch=slice(None)),
        params,
        lr=learned[0].exp(),
        momentum=learned[1].sigmoid(),
        init={"scale": learned[2]},
        groups=_GROUPS,
        dampening=True,
        steps=config.steps,
    )


def judged(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Return loss and error of held-out digits."""
    wrong = (scores.argmax(1) != labels).double().mean()
    loss = float(cross_entropy(scores, labels))
    return {"held_out_loss": loss, "held_out_error": float(wrong)}


def _rounded(table: Tensor) -> list[list[float]]:
    """Return rows of numbers, short enough for a file that is kept."""
    return [[round(value, 4) for value in row] for row in table.tolist()]


def learn_schedule(config: Config, data: Split, seed: int) -> dict[str, Any]:
    """Learn rates, momenta and scales; return them, the losses, and fresh runs."""
    started = time.perf_counter()
    shape = (config.steps, len(_GROUPS))
    learned = [torch.full(shape, -1.0), torch.zeros(shape), torch.full(shape[1:], -3.0)]
    optimizer = AuthorsAdam(learned, _META_RATE)
    curve = []

    def note(run: Any) -> None:
        scores = perceptron(run.params, data.held_out_x)
        found = judged(scores, data.held_out_y)
        curve.append({"training_loss": float(run.outer_loss), **found})

    for iteration in range(config.iterations):
        own = 1_000_000 * seed + iteration
        result = train(reversible_sgd, config, data, learned, own)
        note(result)
        slopes = result.schedule
        rate, momentum = learned[0].exp(), learned[1].sigmoid()
        optimizer.step(
            [
                slopes["lr"] * rate,
                slopes["momentum"] * momentum * (1 - momentum),
                result.init["scale"],
            ]
        )
        print(f"schedule, seed {seed}, {iteration}: {curve[-1]}", flush=True)
    seconds = time.perf_counter() - started
    fresh = range(1_000_000 * seed + 500_000, 1_000_000 * seed + 500_000 + config.fresh)
    for own in fresh:
        note(train(run_sgd, config, data, learned, own))
    return {
        "seed": seed,
        "seconds": seconds,
        "curve": curve[: config.iterations],
        "fresh": curve[config.iterations :],
        "groups": _GROUPS,
        "rates": _rounded(learned[0].exp()),
        "momenta": _rounded(learned[1].sigmoid()),
        "scales": learned[2].exp().tolist(),
    }


def learn_images(config: Config, data: Split, seed: int) -> dict[str, Any]:
    """Learn ten images; return them, the losses, and fresh runs."""
    started = time.perf_counter()
    labels = torch.arange(10)

    def loss(params: Weights, images: Tensor, labels: Tensor) -> Tensor:
        scores = images @ params["weights"] + params["biases"]
        squares = sum(weight.square().sum() for weight in params.values())
        return cross_entropy(scores, labels) + 0.01 * squares

    def run(mode: Callable[..., Any], images: Tensor, own: int) -> Any:
        generator = torch.Generator().manual_seed(own)
        shapes = {"weights": (SIDE**2, 10), "biases": (10,)}
        return mode(
            partial(loss, labels=labels),
            lambda params, _: loss(params, data.x, data.y),
            {
                name: math.exp(-4) * torch.randn(shape, generator=generator)
                for name, shape in shapes.items()
            },
            images,
            lr=1.0,
            momentum=0.9,
            dampening=True,
            steps=config.images_steps,
        )

    def noted(result: Any) -> dict[str, float]:
        scores = data.held_out_x @ result.params["weights"] + result.params["biases"]
        outer = {"validation_loss": float(result.outer_loss)}
        return {**outer, **judged(scores, data.held_out_y)}

    generator = torch.Generator().manual_seed(seed)
    images = 0.01 * torch.randn(10, SIDE**2, generator=generator)
    curve = []
    for _ in range(config.images_iterations):
        result = run(reversible_sgd, images, seed)
        curve.append(noted(result))
        images = images - result.gradients
    curve.append(noted(run(run_sgd, images, seed)))
    seconds = time.perf_counter() - started
    print(f"images, seed {seed}: {curve[0]}, {curve[-1]}", flush=True)
    fresh = range(1000 + config.fresh * seed, 1000 + config.fresh * (seed + 1))
    return {
        "seed": seed,
        "seconds": seconds,
        "curve": curve,
        "fresh": [noted(run(run_sgd, images, own)) for own in fresh],
        "images": _rounded(images),
    }


def main(arguments: list[str] | None = None, config: Config = Config()) -> None:
    """Learn, print, write the records and the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reversible_mnist",
        description="Schedules and images of Maclaurin et al., learned on MNIST.",
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=config.seeds)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args(arguments)
    config = dataclasses.replace(config, seeds=options.seeds)
    torch.set_num_threads(config.threads)
    images, labels = read_pair(options.data, "t10k")
    data, of_images = (
        split(images, labels, share)
        for share in (config.held_out, config.images_held_out)
    )
    content = {
        "config": dataclasses.asdict(config),
        "environment": environment(torch.device("cpu"), config.threads),
        "images": [learn_images(config, of_images, s) for s in range(config.seeds)],
        "schedules": [learn_schedule(config, data, s) for s in range(config.seeds)],
    }
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.json, content)
    if options.picture is not None:
        from benchmarks.reversible_mnist_pictures import draw_reversible_mnist

        options.picture.parent.mkdir(parents=True, exist_ok=True)
        draw_reversible_mnist(content, options.picture)


if __name__ == "__main__":
    main()
