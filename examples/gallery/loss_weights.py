"""How much each sensor counts in a regression, learned from a few clean readings.

Four sensors measure the same quantity xᵀθ* with noise of different strength. Every
iteration brings new readings from each. λ are the log weights of the sensors in the
inner loss; a softmax fixes the sum of the weights. The outer loss is the squared error
on 200 readings without noise.

Known:   weights in proportion to 1/σ² (Aitken's generalised least squares). With as
         many readings n of each sensor and E[xxᵀ] = I, the error of θ has the variance
         Σ w_g² σ_g² / n for each coordinate. With Σ w_g = 1 it is smallest where
         w_g σ_g² is the same for all g.
Shows:   bilevel_step() with λ outside the model, on data that never repeat.
Prints:  learned weights, distance of θ to θ*, milliseconds per iteration.
Time:    about a minute on one core, for each seed.

    python -m examples.gallery.loss_weights
"""

import math

import torch
from torch import Tensor, nn

from examples.gallery.gallery import Instance, Loss, Problem
from examples.gallery.report import main
from l2l_evograd.seeds import generator_for

SIGMAS = torch.tensor([0.2, 0.4, 0.8, 1.6])
FEATURES, READINGS, CLEAN, LR = 100, 64, 200, 0.1


def make(seed: int, strength: Tensor) -> Instance:
    """Draw θ* and the clean readings of a seed, and make the model."""
    generator = generator_for(seed, "readings")
    truth = torch.randn(FEATURES, generator=generator) / math.sqrt(FEATURES)
    clean = torch.randn(CLEAN, FEATURES, generator=generator)
    model = nn.Linear(FEATURES, 1, bias=False)
    nn.init.zeros_(model.weight)

    def losses() -> tuple[Loss, Loss]:
        x = torch.randn(len(SIGMAS), READINGS, FEATURES, generator=generator)
        noise = torch.randn(len(SIGMAS), READINGS, generator=generator)
        y = x @ truth + SIGMAS[:, None] * noise

        def inner(view: nn.Module) -> Tensor:
            errors = (view(x).squeeze(2) - y).square().mean(dim=1) / 2
            return (strength.softmax(dim=0) * errors).sum()

        def outer(view: nn.Module) -> Tensor:
            return (view(clean).squeeze(1) - clean @ truth).square().mean() / 2

        return inner, outer

    def error() -> float:
        return float((model.weight.detach() - truth).norm())

    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    return Instance(model, optimizer, strength, losses, error)


PROBLEM = Problem(
    name="loss weights",
    make=make,
    start=torch.zeros(len(SIGMAS)),
    fixed={"none": torch.zeros(len(SIGMAS)), "known": -2 * SIGMAS.log()},
    labels=[f"σ = {sigma:g}" for sigma in SIGMAS.tolist()],
    quantity="log weight",
    shown=lambda strength: strength.log_softmax(dim=0),
    quality_name="‖θ − θ*‖",
    higher_is_better=False,
    iterations=600,
    hyper_lr=0.05,
)

if __name__ == "__main__":
    main(PROBLEM)
