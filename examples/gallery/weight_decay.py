"""Weight decay of each group of weights, learned from validation data.

Linear regression on 400 weights in four groups, from 400 noisy samples. The true
weights of a group have the mean square τ², which differs between groups; those of the
last group are 0. λ are the log decays of the groups.

Known:   σ²/(n τ²), with noise σ² and n samples. The inner loss times n/σ² is then the
         negative log posterior for a Gaussian prior of variance τ², and its minimum θ̂
         the posterior mean, which has the least expected squared error. One step sees
         this too: E[θ* | data] = θ̂ makes E[θ̂_j (θ̂_j − θ*_j)] = 0, and that is the
         hypergradient at θ̂. For τ = 0 the best decay is infinite; it is limited to 10,
         so that gradient descent stays stable. (This moves the others' best by 3 %.)
Shows:   bilevel_step() with λ in a penalty on the weights.
Prints:  learned decays, distance of θ to θ*, milliseconds per iteration. "common" is
         the best single decay: that of the mean τ² of all weights.
Time:    about a minute on one core, for each seed.

    python -m examples.gallery.weight_decay
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from examples.gallery.gallery import Instance, Problem
from examples.gallery.report import main
from l2l_evograd.seeds import generator_for

TAUS = torch.tensor([0.3, 0.1, 0.05, 0.0])
GROUP, TRAIN, VALIDATION, NOISE, LIMIT, LR = 100, 400, 2000, 2.0, 10.0, 0.1
FEATURES = GROUP * len(TAUS)
BEST = (NOISE**2 / (TRAIN * TAUS.square())).clamp(max=LIMIT)
COMMON = NOISE**2 / (TRAIN * TAUS.square().mean())


def make(seed: int, strength: Tensor) -> Instance:
    """Draw θ* and the data of a seed, and make the model."""
    generator = generator_for(seed, "data")
    groups = torch.randn(len(TAUS), GROUP, generator=generator)
    groups *= math.sqrt(GROUP) * TAUS[:, None] / groups.norm(dim=1, keepdim=True)
    truth = groups.flatten()
    x = torch.randn(TRAIN + VALIDATION, FEATURES, generator=generator)
    y = x @ truth + NOISE * torch.randn(len(x), generator=generator)
    model = nn.Linear(FEATURES, 1, bias=False)
    nn.init.zeros_(model.weight)

    def inner(view: Any) -> Tensor:
        error = (view(x[:TRAIN]).squeeze(1) - y[:TRAIN]).square().mean()
        squares = view.weight.view(len(TAUS), GROUP).square().sum(dim=1)
        return (error + (strength.exp().clamp(max=LIMIT) * squares).sum()) / 2

    def outer(view: nn.Module) -> Tensor:
        return (view(x[TRAIN:]).squeeze(1) - y[TRAIN:]).square().mean() / 2

    def error() -> float:
        return float((model.weight.detach() - truth).norm())

    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    return Instance(model, optimizer, strength, lambda: (inner, outer), error)


PROBLEM = Problem(
    name="weight decay",
    make=make,
    start=torch.full((len(TAUS),), math.log(0.5)),
    fixed={
        "none": torch.full((len(TAUS),), -math.inf),
        "common": COMMON.log().expand(len(TAUS)),
        "known": BEST.log(),
    },
    labels=[f"τ = {tau:g}" for tau in TAUS.tolist()],
    quantity="log decay",
    shown=lambda strength: strength.clamp(max=math.log(LIMIT)),
    quality_name="‖θ − θ*‖",
    higher_is_better=False,
    iterations=500,
    hyper_lr=0.04,
)

if __name__ == "__main__":
    main(PROBLEM)
