"""The rotation problem: learn the angle between training and validation digits.

The inner loss is the cross-entropy on upright training digits that the model turns by
the angle λ. The outer loss is the cross-entropy on validation digits, which are turned
by 30 degrees in the data.

Source: Bohdal, Yang, Hospedales, NeurIPS 2021, section 4.2, and the released notebook.
"""

import math
from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from l2l_evograd.bilevel import bilevel_step
from l2l_evograd.data.digits import ANGLE, Digits, DigitSplits
from l2l_evograd.estimators import EvoGrad, Exact, Guided
from l2l_evograd.experiments.divergence import check_training_loss, check_weights
from l2l_evograd.experiments.results import finite_or_none
from l2l_evograd.experiments.rotation.settings import RotationSettings
from l2l_evograd.seeds import derive_seed, generator_for, seeded

# Mean and standard deviation of MNIST's pixels.
_MEAN, _SD = 0.1307, 0.3081

# Number of points of the angle's curve.
_POINTS = 200


def turned(images: Tensor, angle: Tensor | float) -> Tensor:
    """Return images turned counter-clockwise about their centre, differentiably.

    The interpolation is bilinear. Pixels from outside the image are 0.

    Args:
        images: square images, shape (N, C, H, W).
        angle: angle in radians, scalar.
    """
    angle = torch.as_tensor(angle, dtype=images.dtype)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    matrix = torch.stack([cos, -sin, zero, sin, cos, zero]).view(1, 2, 3)
    grid = affine_grid(matrix, [1, *images.shape[1:]], align_corners=False)
    return grid_sample(
        images, grid.expand(len(images), -1, -1, -1), align_corners=False
    )


class TurningLeNet(nn.Module):
    """LeNet for 28 x 28 digits, and the angle by which it turns its training images.

    Attributes:
        angle: angle in radians, 0 at first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.angle = nn.Parameter(torch.zeros(()))
        self.network = nn.Sequential(
            *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()),
            nn.Linear(84, 10),
        )

    def forward(self, images: Tensor, turn: bool = False) -> Tensor:
        """Return scores, shape (N, 10).

        Args:
            images: values 0 to 1, shape (N, 1, 28, 28).
            turn: whether to turn the images by the angle first.
        """
        if turn:
            images = turned(images, self.angle)
        scores: Tensor = self.network((images - _MEAN) / _SD)
        return scores


def method_options(name: str, settings: RotationSettings) -> dict[str, Any] | None:
    """Return a method's arguments of ``bilevel_step``; None if no angle is learned."""
    if name == "none":
        return None
    if name == "evograd":
        population = EvoGrad(
            settings.candidates, sigma=settings.sigma, temperature=settings.temperature
        )
        return {"update": "evolution", "estimator": population}
    return {"estimator": Exact() if name == "exact" else Guided(settings.h)}


def train(
    method: str,
    digits: DigitSplits,
    settings: RotationSettings,
    seed: int,
    after: Callable[[int, float], None] | None = None,
) -> dict[str, Any]:
    """Train one network with one method and return its results.

    In each iteration, the weights take an Adam step on turned training images. Then the
    angle takes an Adam step along the hypergradient of the validation loss. All methods
    start from the same weights and see the same images.

    Args:
        method: ``"none"``, ``"evograd"``, ``"guided"`` or ``"exact"``.
        digits: digits for training, validation and test.
        settings: settings of the run.
        seed: seed from which all random numbers are derived.
        after: function that is called after each iteration with the number of finished
            iterations and the training loss.

    Returns:
        ``accuracy`` on the turned test digits; ``accuracy_back`` on the test digits
        after turning them back by 30 degrees; ``angle`` in degrees; ``curve`` of
        (iteration, degrees); ``validation_loss``, the cross-entropy on all validation
        digits (None: not finite); ``seconds_per_iteration``.

    Raises:
        NotFiniteError: if the training has diverged.

    Cost: the cost of :func:`~l2l_evograd.bilevel_step` for each iteration.
    """
    with seeded(derive_seed(seed, "weights")):
        model = TurningLeNet()
    base = torch.optim.Adam(model.network.parameters(), lr=settings.lr)
    hyper = torch.optim.Adam([model.angle], lr=settings.meta_lr)
    options = method_options(method, settings)
    generator = generator_for(seed, "perturbations")
    size = settings.batch_size
    batches = _batches(digits.train, size, generator_for(seed, "train"))
    validation = _batches(digits.validation, size, generator_for(seed, "validation"))
    every = max(1, settings.iterations // _POINTS)
    curve, seconds = [(0, 0.0)], []
    for done in range(1, settings.iterations + 1):
        own, other = next(batches), next(validation)
        start = perf_counter()
        if options is None:
            loss = _plain_step(model, own, base)
        else:
            loss = _bilevel_step(model, own, other, base, hyper, generator, options)
        seconds.append(perf_counter() - start)
        check_training_loss(loss, done - 1)
        if done % every == 0 or done == settings.iterations:
            curve.append((done, math.degrees(float(model.angle.detach()))))
        if after is not None:
            after(done, loss)
    check_weights(model)
    back = turned(digits.test.images, -math.radians(ANGLE))
    return {
        "seed": seed,
        "method": method,
        "accuracy": accuracy(model, digits.test),
        "accuracy_back": accuracy(model, Digits(back, digits.test.labels)),
        "angle": None if options is None else curve[-1][1],
        "curve": None if options is None else curve,
        "validation_loss": finite_or_none(mean_loss(model, digits.validation)),
        "seconds_per_iteration": median(seconds),
    }


def accuracy(model: TurningLeNet, digits: Digits) -> float:
    """Return the accuracy of the network on the digits, without turning them."""
    right = 0
    with torch.no_grad():
        for images, labels in zip(
            digits.images.split(1000), digits.labels.split(1000), strict=True
        ):
            right += int((model(images).argmax(dim=1) == labels).sum())
    return right / len(digits)


def mean_loss(model: TurningLeNet, digits: Digits) -> float:
    """Return the mean cross-entropy on the digits, without turning them."""
    with torch.no_grad():
        losses = [
            cross_entropy(model(images), labels, reduction="sum")
            for images, labels in zip(
                digits.images.split(1000), digits.labels.split(1000), strict=True
            )
        ]
    return float(torch.stack(losses).sum()) / len(digits)


def _plain_step(
    model: TurningLeNet, batch: Digits, optimizer: torch.optim.Optimizer
) -> float:
    loss = cross_entropy(model(batch.images), batch.labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def _bilevel_step(
    model: TurningLeNet,
    batch: Digits,
    validation: Digits,
    base: torch.optim.Optimizer,
    hyper: torch.optim.Optimizer,
    generator: torch.Generator,
    options: dict[str, Any],
) -> float:
    step = bilevel_step(
        model,
        lambda view: cross_entropy(view(batch.images, turn=True), batch.labels),
        lambda view: cross_entropy(view(validation.images), validation.labels),
        base,
        hyper,
        base_step="before",
        generator=generator,
        **options,
    )
    return float(step.inner_loss)


def _batches(digits: Digits, size: int, generator: torch.Generator) -> Iterator[Digits]:
    """Yield batches without end.

    Each pass has a new order and leaves out a last batch that is not full.
    """
    size = min(size, len(digits))
    while True:
        order = torch.randperm(len(digits), generator=generator)
        for chosen in order[: len(digits) // size * size].split(size):
            yield Digits(digits.images[chosen], digits.labels[chosen])
