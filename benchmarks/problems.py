"""Bilevel problems of the benchmarks.

One iteration of any method consists of the hypergradient of L(θ − η ∇ℓ(θ, λ)) with
respect to λ, a step of λ's optimizer, and a step of θ's optimizer.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, Optimizer

from l2l_evograd.experiments.crossdomain.data.episodes import Episode
from l2l_evograd.experiments.crossdomain.networks.backbones import make_backbone
from l2l_evograd.experiments.crossdomain.networks.heads import (
    FewShotModel,
    few_shot_loss,
    make_head,
)
from l2l_evograd.experiments.noisy_labels.networks import make_network
from l2l_evograd.experiments.noisy_labels.weighting import MetaWeightNet, weighted_loss
from l2l_evograd.layers import feature_transforms, feature_transforms_switched

Loss = Callable[[nn.Module], Tensor]


@dataclass
class Bilevel:
    """A bilevel problem.

    Attributes:
        model: the model. θ are its parameters that require grad and are not in λ.
        inner: ℓ; its argument is a module that acts as the model.
        outer: L; its argument is a module that acts as the model.
        hyperparameters: λ, leaf tensors inside or outside the model.
        base: optimizer of θ.
        hyper: optimizer of λ.
        lr: η, learning rate of the virtual step.
        base_step: whether the step of θ is ``"after"`` or ``"before"`` the step of λ.
            The problems follow the paper's code.
        outside: the module whose parameters are λ, if it is not the model.
        weights: θ.
    """

    model: nn.Module
    inner: Loss
    outer: Loss
    hyperparameters: list[Tensor]
    base: Optimizer
    hyper: Optimizer
    lr: float
    base_step: str
    outside: nn.Module | None = None
    weights: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        """Collect θ."""
        chosen = {id(tensor) for tensor in self.hyperparameters}
        self.weights = [
            p
            for p in self.model.parameters()
            if p.requires_grad and id(p) not in chosen
        ]


@dataclass(frozen=True)
class WeightNetConfig:
    """Meta-Weight-Net on random images, with the sizes of the paper's experiment.

    Attributes:
        network: a name in :mod:`l2l_evograd.experiments.noisy_labels.networks`.
        batch_size: images of the training batch, and of the meta batch.
        image_size: side of the images in pixels.
    """

    network: str = "resnet32"
    batch_size: int = 100
    image_size: int = 32


@dataclass(frozen=True)
class TransformsConfig:
    """Learned feature-wise transformation in a ResNet, on episodes of random images.

    Attributes:
        backbone: a name in
            :mod:`l2l_evograd.experiments.crossdomain.networks.backbones`.
        head: a name in :mod:`l2l_evograd.experiments.crossdomain.networks.heads`.
        ways: classes of an episode.
        shots: support images of a class.
        queries: query images of a class.
        image_size: side of the images in pixels.
    """

    backbone: str = "resnet10"
    head: str = "relationnet"
    ways: int = 5
    shots: int = 5
    queries: int = 16
    image_size: int = 84


def weight_net_problem(
    config: WeightNetConfig, device: torch.device, layout: torch.memory_format
) -> Bilevel:
    """Return the problem; the same configuration always gives the same problem."""
    torch.manual_seed(0)
    model = make_network(config.network, 10).to(device, memory_format=layout)
    net = MetaWeightNet().to(device)
    shape = (config.batch_size, 3, config.image_size, config.image_size)
    x, meta_x = (torch.randn(shape, device=device) for _ in range(2))
    y, meta_y = (torch.randint(10, shape[:1], device=device) for _ in range(2))

    inner, outer = weight_net_losses(net, (x, y), (meta_x, meta_y))
    weights, hyper = list(model.parameters()), list(net.parameters())
    options = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
    return Bilevel(
        model,
        inner,
        outer,
        list(hyper),
        SGD(weights, lr=0.1, **options),
        SGD(hyper, lr=1e-3, **options),
        lr=0.1,
        base_step="after",
        outside=net,
    )


def transforms_problem(
    config: TransformsConfig, device: torch.device, layout: torch.memory_format
) -> Bilevel:
    """Return the problem; the same configuration always gives the same problem."""
    torch.manual_seed(0)
    backbone = make_backbone(config.backbone, config.image_size, True)
    model = FewShotModel(backbone, make_head(config.head, backbone, config.ways))
    model.to(device, memory_format=layout)
    seen, unseen = (_random_episode(config, device) for _ in range(2))
    inner, outer = transforms_losses(seen, unseen, config.ways)
    weights, hyper = weights_and_transforms(model)
    return Bilevel(
        model,
        inner,
        outer,
        list(hyper),
        Adam(weights, lr=1e-3),
        Adam(hyper, lr=1e-3, weight_decay=1e-8),
        lr=1e-3,
        base_step="before",
    )


def weight_net_losses(
    net: nn.Module, train: tuple[Tensor, Tensor], meta: tuple[Tensor, Tensor]
) -> tuple[Loss, Loss]:
    """Return ℓ and L of learning with a weight net.

    Args:
        net: network that maps losses of samples to their weights.
        train: images and labels of ℓ.
        meta: images and labels of L.
    """

    def inner(view: nn.Module) -> Tensor:
        losses = F.cross_entropy(view(train[0]), train[1], reduction="none")
        return weighted_loss(losses, net(losses))

    def outer(view: nn.Module) -> Tensor:
        return F.cross_entropy(view(meta[0]), meta[1])

    return inner, outer


def transforms_losses(seen: Episode, unseen: Episode, ways: int) -> tuple[Loss, Loss]:
    """Return ℓ with the transformation layers on, and L with the layers off.

    Args:
        seen: episode of ℓ.
        unseen: episode of L.
        ways: classes of each episode.
    """

    def inner(view: nn.Module) -> Tensor:
        return few_shot_loss(view, seen, ways)

    def outer(view: nn.Module) -> Tensor:
        with feature_transforms_switched(view, on=False):
            return few_shot_loss(view, unseen, ways)

    return inner, outer


def weights_and_transforms(
    model: nn.Module,
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return θ and λ, the parameters of the feature-wise transformation."""
    hyper = list(feature_transforms(model).parameters())
    chosen = {id(parameter) for parameter in hyper}
    return [p for p in model.parameters() if id(p) not in chosen], hyper


def _random_episode(config: TransformsConfig, device: torch.device) -> Episode:
    """Return an episode in which each class is a colour with noise."""
    side, parts = config.image_size, []
    colours = torch.randn(config.ways, 3)
    for each in (config.shots, config.queries):
        labels = torch.arange(config.ways).repeat_interleave(each)
        noise = torch.randn(len(labels), 3, side, side)
        images = colours[labels][:, :, None, None] + noise
        parts += [images.to(device), labels.to(device)]
    return Episode(*parts)
