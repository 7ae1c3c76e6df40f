"""Weights of the classes of a long tail, learned from balanced validation data.

Ten Gaussian classes, of which the first has 2,500 training samples and the last 25. A
linear softmax model learns from all of them; each sample is weighted by its class. λ
are the log weights of the classes. Validation and test data are balanced.

Known:   weights in proportion to 1/n_c. The expected inner loss is the cross-entropy
         under class frequencies q_c ∝ n_c w_c. Classes with one covariance have linear
         log odds, so that the model reaches the true posterior for these q. The outer
         loss is the cross-entropy under equal q, and is smallest for that posterior.
Shows:   bilevel_step() with λ as weights of the samples, behind the model's outputs.
Prints:  learned weights (log, less their mean), accuracy on balanced test data,
         milliseconds per iteration.
Time:    about a minute on one core, for each seed.

    python -m examples.gallery.class_weights
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from examples.gallery.gallery import Instance, Problem
from examples.gallery.report import main
from l2l_evograd.seeds import generator_for

CLASSES, MOST, TAIL, VALIDATION, TEST, SCALE, LR = 10, 2500, 100, 200, 1000, 2.0, 0.3
COUNTS = (MOST * TAIL ** (-torch.arange(CLASSES) / (CLASSES - 1))).round().long()


def make(seed: int, strength: Tensor) -> Instance:
    """Draw the samples of a seed, and make the model."""
    generator = generator_for(seed, "samples")
    # All classes are equally far from each other.
    centres = SCALE * torch.eye(CLASSES)

    def draw(counts: Tensor) -> tuple[Tensor, Tensor]:
        labels = torch.arange(CLASSES).repeat_interleave(counts)
        noise = torch.randn(len(labels), CLASSES, generator=generator)
        return centres[labels] + noise, labels

    x, y = draw(COUNTS)
    x_val, y_val = draw(torch.full((CLASSES,), VALIDATION))
    x_test, y_test = draw(torch.full((CLASSES,), TEST))
    model = nn.Linear(CLASSES, CLASSES)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)

    def inner(view: nn.Module) -> Tensor:
        weights = strength.exp()[y]
        losses = cross_entropy(view(x), y, reduction="none")
        return (weights * losses).sum() / weights.sum()

    def outer(view: nn.Module) -> Tensor:
        return cross_entropy(view(x_val), y_val)

    def accuracy() -> float:
        with torch.no_grad():
            return float((model(x_test).argmax(dim=1) == y_test).float().mean())

    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    return Instance(model, optimizer, strength, lambda: (inner, outer), accuracy)


PROBLEM = Problem(
    name="class weights",
    make=make,
    start=torch.zeros(CLASSES),
    fixed={"none": torch.zeros(CLASSES), "known": -COUNTS.log()},
    labels=[f"n = {count}" for count in COUNTS.tolist()],
    quantity="log weight less the mean",
    shown=lambda strength: strength - strength.mean(),
    quality_name="accuracy on balanced data",
    higher_is_better=True,
    iterations=300,
    hyper_lr=0.05,
)

if __name__ == "__main__":
    main(PROBLEM)
