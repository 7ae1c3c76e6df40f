"""A loop of your own in which a few clean samples weight the noisy ones.

Shows:   reweighting_step in place of backward() and the optimizer's step.
Prints:  accuracy without weights, and with weights from EvoGrad (two candidates) and
         from Guided, and the share of the weight that wrong labels get.
Time:    about 5 seconds on one core.

    python examples/reweighting.py
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from l2l_evograd import EvoGrad, Guided, reweighting_step

generator = torch.Generator().manual_seed(0)
TRUE = torch.randint(10, (3000,), generator=generator)
INPUTS = 0.7 * torch.randn(10, 30, generator=generator)[TRUE]
INPUTS += torch.randn(3000, 30, generator=generator)
WRONG = torch.rand(1000, generator=generator) < 0.4  # of the 1000 to train on
LABELS = torch.where(WRONG, (TRUE[:1000] + 1) % 10, TRUE[:1000])
CLEAN, TEST = slice(1000, 1100), slice(1100, 3000)
ESTIMATORS = {"none": None, "evograd": EvoGrad(), "guided": Guided()}


def main(steps: int = 300) -> dict[str, tuple[float, float]]:
    """Return the test accuracy and the share of the weight that wrong labels got."""
    figures = {}
    for name, estimator in ESTIMATORS.items():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(30, 200), nn.ReLU(), nn.Linear(200, 10))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        chosen = torch.zeros(100, dtype=torch.int64)

        def losses(view, chosen=chosen):
            scores = view(INPUTS[chosen])
            return cross_entropy(scores, LABELS[chosen], reduction="none")

        def clean_loss(view):
            return cross_entropy(view(INPUTS[CLEAN]), TRUE[CLEAN])

        on_wrong = []
        for _ in range(steps):
            chosen.random_(1000)
            if estimator is None:
                optimizer.zero_grad()
                losses(model).mean().backward()
                optimizer.step()
                weights = torch.full((100,), 0.01)
            else:
                weights = reweighting_step(
                    *(model, losses, clean_loss, optimizer, 100), estimator=estimator
                ).weights
            on_wrong.append(float(weights[WRONG[chosen]].sum()))
        right = model(INPUTS[TEST]).argmax(1) == TRUE[TEST]
        figures[name] = float(right.double().mean()), sum(on_wrong) / steps
        accuracy, share = figures[name]
        print(f"{name}: accuracy {accuracy:.1%}, weight on wrong labels {share:.0%}")
    return figures


if __name__ == "__main__":
    main()
