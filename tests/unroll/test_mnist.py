"""A schedule for every step and layer of a perceptron, learned on digits."""

import gzip
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from l2l_evograd.unroll import reversible_sgd

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "mnist"
SIZES = (784, 50, 50, 50, 10)
STEPS = 100


def read(name, offset):
    raw = gzip.decompress((FOLDER / name).read_bytes())
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=offset).copy())


def logits(params, x):
    for layer in range(4):
        x = x @ params[f"w{layer}"] + params[f"b{layer}"]
        x = torch.tanh(x) if layer < 3 else x
    return x


@pytest.mark.skipif(not FOLDER.is_dir(), reason="MNIST is not there")
def test_per_step_rates_and_momenta_lower_the_training_loss():
    """The experiment of the paper's figures 2 to 7, with torch's Adam, ten steps."""
    x = read("t10k-images-idx3-ubyte.gz", 16)[: 8000 * 784].reshape(-1, 784) / 255
    x, y = x - x.mean(0), read("t10k-labels-idx1-ubyte.gz", 8)[:8000].long()
    groups = [f"{kind}{layer}" for layer in range(4) for kind in "wb"]

    def inner(params, _, batch):
        return F.cross_entropy(logits(params, x[batch]), y[batch])

    # A rate of 1/e in the paper's scaling, whose steps are 1 - β times ours.
    log_lr = torch.full((STEPS, 8), math.log(0.5) - 1, requires_grad=True)
    logit = torch.zeros(STEPS, 8, requires_grad=True)
    scale = torch.full((8,), -3.0, requires_grad=True)
    optimizer = torch.optim.Adam([log_lr, logit, scale], lr=0.04)
    values = []
    for iteration in range(11):
        rng = torch.Generator().manual_seed(iteration)
        params = {}
        for layer, (before, after) in enumerate(zip(SIZES, SIZES[1:], strict=False)):
            params[f"w{layer}"] = torch.randn(before, after, generator=rng)
            params[f"b{layer}"] = torch.randn(after, generator=rng)
        draws = [torch.randint(8000, (200,), generator=rng) for _ in range(STEPS)]
        lr, momentum = log_lr.exp(), logit.sigmoid()
        result = reversible_sgd(
            [partial(inner, batch=batch) for batch in draws],
            partial(inner, batch=slice(None)),
            params,
            lr=lr.detach(),
            momentum=momentum.detach(),
            steps=STEPS,
            groups=groups,
            init={"scale": scale.detach()},
        )
        values.append(float(result.outer_loss))
        optimizer.zero_grad()
        found = [result.schedule["lr"], result.schedule["momentum"]]
        torch.autograd.backward([lr, momentum], found)
        scale.grad = result.init["scale"]
        optimizer.step()
    assert values[-1] < 0.35 < 0.45 < values[0] < 0.6
