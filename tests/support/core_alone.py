"""What the core can do in an environment that has torch alone; run as a script."""

import importlib.util
import sys

import torch

import l2l_evograd
from l2l_evograd import EvoGrad, EvoGradMetaOptimizer, Exact, Guided, hypergradient

for absent in ("learn2learn", "higher", "torchvision", "rich", "cyclopts"):
    assert importlib.util.find_spec(absent) is None, f"{absent} should not be here"
assert "site-packages" in (l2l_evograd.__file__ or ""), l2l_evograd.__file__

torch.manual_seed(0)
x, y = torch.randn(40, 5, dtype=torch.float64), torch.randn(40, dtype=torch.float64)
theta, weights = {"w": x.new_zeros(5)}, x.new_zeros(20)


def inner_loss(params, weights):
    return (torch.sigmoid(weights) * (x[:20] @ params["w"] - y[:20]).square()).mean()


def outer_loss(params, weights):
    return (x[20:] @ params["w"] - y[20:]).square().mean()


found = {
    name: hypergradient(
        inner_loss, outer_loss, theta, weights, lr=0.1, estimator=estimator
    ).gradients
    for name, estimator in (
        ("exact", Exact()),
        ("guided", Guided()),
        ("evograd", EvoGrad(512)),
    )
}
assert torch.allclose(found["exact"], found["guided"], rtol=1e-7)
cosine = torch.cosine_similarity(found["exact"], found["evograd"], dim=0)
assert cosine > 0.9, cosine

meta = EvoGradMetaOptimizer(torch.nn.Linear(5, 1), lr=0.1)
learner = meta.clone()
learner.adapt(learner(x.float()).square().mean())
learner(x.float()).square().mean().backward()
assert all(p.grad is not None for p in meta.parameters())

print(f"l2l_evograd {l2l_evograd.__version__}, torch {torch.__version__}: all well")
sys.exit(0)
