"""One strength of L2 for each layer and each camera, learned through whole runs.

Shows:   forward_mode() with a few hyperparameters inside the inner loss. A network sees
         200 digits through two cameras, the second of which adds much noise. It
         overfits, unless its weights from that camera are kept small.
Prints:  loss on test digits without L2, with the best shared strength of a grid, with a
         learned one for each layer, and one for each camera too: mean ± standard
         deviation over draws of the data and fresh weights. Saves a picture.
Time:    about 20 seconds on one core. Needs the extra `fewshot`.

    python examples/per_layer_regularisation.py
"""

from pathlib import Path
from statistics import fmean, stdev

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy

from l2l_evograd.data.digits import built_in_digits
from l2l_evograd.experiments import pictures
from l2l_evograd.unroll import forward_mode, run_sgd

SIZES, SGD = [200, 500, 2300], {"lr": 0.08, "momentum": 0.9, "steps": 40}
GRID = torch.tensor([0.003, 0.01, 0.03, 0.1, 0.3, 1.0])
# The weight matrices, and in each arm the number of the strength that each has.
SHAPES = {"good camera": (196, 24), "noisy camera": (196, 24)}
SHAPES |= {"middle layer": (24, 24), "last layer": (24, 10)}
SHARED, LAYERS, CAMERAS = [0, 0, 0, 0], [0, 0, 1, 2], [0, 1, 2, 3]
DIGITS, PICTURE = built_in_digits().train, Path("per_layer_regularisation.png")
Data = tuple[Tensor, Tensor]


def make_data(seed: int) -> list[Data]:
    """Return what the cameras see and labels, to train, to validate and to test."""
    torch.manual_seed(seed)
    order = torch.randperm(len(DIGITS))
    x = avg_pool2d(DIGITS.images, 2).flatten(1)[order]
    x = (x - x.mean(0)) / x.std()
    both = torch.cat([x, x + 2 * torch.randn_like(x)], 1).split(SIZES)
    return list(zip(both, DIGITS.labels[order].split(SIZES), strict=True))


def train(mode, owners: list[int], logs: Tensor, inner: Data, outer: Data, seed: int):
    """Train with the penalty ½ Σ exp(λ) ‖W‖² from fresh weights."""

    def loss(params: dict[str, Tensor], data: Data) -> Tensor:
        good, noisy, middle, last = params.values()
        hidden = torch.tanh(data[0] @ torch.cat([good, noisy]))
        return cross_entropy(torch.tanh(hidden @ middle) @ last, data[1])

    def inner_loss(params: dict[str, Tensor], logs: Tensor) -> Tensor:
        squares = torch.stack([weight.square().sum() for weight in params.values()])
        return loss(params, inner) + logs[owners].exp() @ squares / 2

    torch.manual_seed(seed)
    start = {name: torch.randn(s) / s[0] ** 0.5 for name, s in SHAPES.items()}
    return mode(inner_loss, lambda params, _: loss(params, outer), start, logs, **SGD)


def main(draws: int = 3, steps: int = 12, path: Path = PICTURE) -> dict[str, list]:
    """Learn on validation data; draw, print and return losses on test data by arm."""
    found: dict[str, list[float]] = {}
    for draw in range(draws):
        data, validation, test = make_data(draw)
        choices = GRID.log()[:, None].unbind()
        runs = [train(run_sgd, SHARED, c, data, validation, 99) for c in choices]
        best = choices[int(torch.stack([run.outer_loss for run in runs]).argmin())]
        arms = {"no L2": (SHARED, best - 99), "one, of a grid": (SHARED, best)}
        for name, owners in (("each layer", LAYERS), ("layer and camera", CAMERAS)):
            logs = best.repeat(max(owners) + 1)
            arms[name] = owners, logs
            optimizer, strengths = torch.optim.Adam([logs], lr=0.6), [logs.exp()]
            for step in range(steps):
                result = train(forward_mode, owners, logs, data, validation, step)
                logs.grad = result.gradients
                optimizer.step()
                logs.clamp_(max=3)  # SGD is stable where lr L2 < 2 (1 + momentum)
                strengths.append(logs.exp())
        for name, (owners, logs) in arms.items():
            runs = [train(run_sgd, owners, logs, data, test, s) for s in (100, 101)]
            found.setdefault(name, []).extend(float(run.outer_loss) for run in runs)
    left, right = Figure(figsize=(8, 2.6), layout="constrained").subplots(1, 2)
    for name, losses in found.items():
        print(f"{name:17} test loss {fmean(losses):.3f} ± {stdev(losses):.3f}")
        left.plot(losses, [name] * len(losses), "o", color=pictures.BLUE, alpha=0.5)
    left.set_xlabel("loss on test digits")
    right.semilogy(torch.stack(strengths), label=list(SHAPES))
    right.set(xlabel="outer step", ylabel="strength of L2")
    right.legend(frameon=False, fontsize=8)
    pictures.save(left.figure, path)
    return found


if __name__ == "__main__":
    main()
