"""How strong the noise on the training images should be, learned.

Validation images come from a camera with more noise than the training images have. The
training images are clean; noise of standard deviation s = exp(λ) is added to their
pixels, anew in every iteration. The model is linear, fitted to the labels by squared
error. What is the best s?

Known:   the camera's own noise, s₀. The mean inner loss is
         ½ tr(Wᵀ(S + s²I)W) − tr(WᵀB) + c, with S and B the moments of the clean
         images and labels, so that W(s) = (S + s²I)⁻¹B. The mean outer loss is the
         same with s₀ in place of s. It is smallest at W(s₀), and s₀ alone gives it.
Shows:   bilevel_step() with λ that acts on the inputs, and noise that is drawn once
         for all passes of an iteration. The digits are the package's own.
Prints:  learned noise, accuracy on noisy test images, milliseconds per iteration.
Time:    about a minute on one core, for each seed.

    python -m examples.gallery.augmentation_strength
"""

import functools
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, one_hot
from torchvision.transforms.v2.functional import rotate

from examples.gallery.gallery import Instance, Loss, Problem
from examples.gallery.report import main
from l2l_evograd.data.digits import built_in_digits
from l2l_evograd.seeds import generator_for

NOISE, START, BATCH, LR = 0.3, 0.05, 1000, 1.0


@functools.cache
def digits() -> tuple[Tensor, ...]:
    """Return 14 x 14 pixels and labels for training, validation and test."""
    found = built_in_digits()
    parts = [found.train, found.validation, found.test]
    upright = [found.train.images, *(rotate(p.images, -30.0) for p in parts[1:])]
    pixels = [avg_pool2d(images, 2).flatten(1) for images in upright]
    mean = pixels[0].mean(dim=0)
    return *(p - mean for p in pixels), *(part.labels for part in parts)


def targets(labels: Tensor) -> Tensor:
    """Return one-hot labels, with mean 0."""
    return one_hot(labels, 10).float() - 0.1


def make(seed: int, strength: Tensor) -> Instance:
    """Draw the noise of a seed's camera, and make the model."""
    x, x_val, x_test, y, y_val, y_test = digits()
    generator = generator_for(seed, "noise")
    x_val = x_val + NOISE * torch.randn(x_val.shape, generator=generator)
    x_test = x_test + NOISE * torch.randn(x_test.shape, generator=generator)
    model = nn.Linear(x.shape[1], 10, bias=False)
    nn.init.zeros_(model.weight)

    def losses() -> tuple[Loss, Loss]:
        chosen = torch.randint(len(x), (BATCH,), generator=generator)
        noise = torch.randn(BATCH, x.shape[1], generator=generator)

        def inner(view: nn.Module) -> Tensor:
            errors = view(x[chosen] + strength.exp() * noise) - targets(y[chosen])
            return errors.square().sum(dim=1).mean() / 2

        def outer(view: nn.Module) -> Tensor:
            return (view(x_val) - targets(y_val)).square().sum(dim=1).mean() / 2

        return inner, outer

    def accuracy() -> float:
        with torch.no_grad():
            return float((model(x_test).argmax(dim=1) == y_test).float().mean())

    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    return Instance(model, optimizer, strength, losses, accuracy)


PROBLEM = Problem(
    name="augmentation strength",
    make=make,
    start=torch.tensor([math.log(START)]),
    fixed={"none": torch.tensor([-math.inf]), "known": torch.tensor([math.log(NOISE)])},
    labels=["noise"],
    quantity="standard deviation of the noise",
    shown=lambda strength: strength.exp(),
    quality_name="accuracy on noisy test images",
    higher_is_better=True,
    iterations=300,
    hyper_lr=0.03,
)

if __name__ == "__main__":
    main(PROBLEM)
