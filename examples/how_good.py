"""Estimated hypergradients compared with exact ones, on two problems.

1. Sample weights: 100 weights of a batch of glyphs, some with wrong labels, for a small
   convolutional network, as in Meta-Weight-Net.
2. Feature-wise transformation: the 3,712 strengths in a ResNet-10. The inner loss is on
   one domain with the layers on, the outer loss on another with the layers off.

Prints a table for each problem. For each of five estimators it has the cosine and the
norm ratio to the exact hypergradient of `higher`, the realised descent, seconds and
peak memory. It takes about four minutes on two cores.

    python examples/how_good.py
"""

import torch
from torch import nn
from torch.nn import functional as F

from l2l_evograd.experiments.crossdomain.data.domains import Dataset, built_in_domains
from l2l_evograd.experiments.crossdomain.data.episodes import EpisodeSampler
from l2l_evograd.experiments.crossdomain.networks import heads
from l2l_evograd.experiments.crossdomain.networks.backbones import make_backbone
from l2l_evograd.layers import feature_transforms, feature_transforms_switched
from l2l_evograd.oracle import Comparison, compare


def batch(dataset: Dataset, size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random images of the first ten classes."""
    few = [i for i, label in enumerate(dataset.labels) if label < 10]
    order = torch.randperm(len(few), generator=torch.Generator().manual_seed(seed))
    chosen = [dataset[few[i]] for i in order[:size].tolist()]
    return torch.stack([x for x, _ in chosen]), torch.tensor([y for _, y in chosen])


def sample_weights(size: int = 100, draws: int = 16) -> Comparison:
    """Compare estimates of the gradient with respect to weights of samples."""
    torch.manual_seed(0)
    glyphs = built_in_domains()["print"].splits["base"]
    x, y = batch(glyphs, size, seed=1)
    y[: size // 3] = (y[: size // 3] + 1) % 10  # wrong labels
    x_clean, y_clean = batch(glyphs, size, seed=2)
    model = nn.Sequential(
        make_backbone("cnn4", 32), nn.Flatten(), nn.Linear(64 * 2 * 2, 10)
    )
    weights = torch.zeros(size, requires_grad=True)
    return compare(
        model,
        lambda net: (
            torch.sigmoid(weights) * F.cross_entropy(net(x), y, reduction="none")
        ).mean(),
        lambda net: F.cross_entropy(net(x_clean), y_clean),
        weights,
        lr=0.1,
        draws=draws,
    )


def transformation(name: str = "resnet10", draws: int = 8) -> Comparison:
    """Compare estimates of the gradient with respect to the layers' strengths."""
    torch.manual_seed(0)
    domains = built_in_domains()
    seen, unseen = (
        EpisodeSampler(domains[domain].splits["base"], 5, 5, 5).sample(seed=0)
        for domain in ("print", "outline")
    )
    backbone = make_backbone(name, 32, feature_transforms=True)
    model = heads.FewShotModel(backbone, heads.make_head("relationnet", backbone))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(10):  # a few steps, because all losses are similar at the start
        optimizer.zero_grad()
        heads.few_shot_loss(model, seen, 5).backward()
        optimizer.step()

    def outer(net: nn.Module) -> torch.Tensor:
        with feature_transforms_switched(net, on=False):
            return heads.few_shot_loss(net, unseen, 5)

    return compare(
        model,
        lambda net: heads.few_shot_loss(net, seen, 5),
        outer,
        feature_transforms(model),
        lr=0.01,
        draws=draws,
    )


def main() -> None:
    """Print both tables."""
    print("Weights of 100 samples")
    sample_weights().print()
    print("Feature-wise transformation layers of a ResNet-10")
    transformation().print()


if __name__ == "__main__":
    main()
