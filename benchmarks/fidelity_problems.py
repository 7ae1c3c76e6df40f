"""Bilevel problems with trained networks and images of glyphs, one for each batch.

``SampleWeights`` is a Meta-Weight-Net on glyphs with wrong labels. ``Transforms`` is
learned feature-wise transformation on episodes of two domains of glyphs. Each problem
is available with the kinks of its network, or smooth, with softplus in place of ReLU
and averages in place of maxima.

The base optimizer is SGD with learning rate η and no momentum, and its step comes after
the step of λ. With this choice all methods estimate the gradient of the same function
of λ. Libraries that differentiate at the weights after the base step see the weights of
the virtual step. The population of Algorithm 1 surrounds the weights before the step.
In the paper's code for transformations it surrounds the weights after a step of Adam,
so its gradient there is that of another function.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam

from benchmarks.problems import (
    Bilevel,
    transforms_losses,
    weight_net_losses,
    weights_and_transforms,
)
from l2l_evograd.experiments.crossdomain.data.domains import Dataset, built_in_domains
from l2l_evograd.experiments.crossdomain.data.episodes import Episode, EpisodeSampler
from l2l_evograd.experiments.crossdomain.networks.backbones import make_backbone
from l2l_evograd.experiments.crossdomain.networks.heads import (
    FewShotModel,
    few_shot_loss,
    make_head,
)
from l2l_evograd.experiments.noisy_labels.corruption import corrupt_labels
from l2l_evograd.experiments.noisy_labels.networks import make_network
from l2l_evograd.experiments.noisy_labels.weighting import MetaWeightNet
from l2l_evograd.seeds import derive_seed, generator_for, seeded

CPU = torch.device("cpu")
_CLASSES = 10
_SGD = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
_SEEN, _UNSEEN = "print", "outline"


@dataclass(frozen=True)
class SampleWeights:
    """A Meta-Weight-Net and the network that it trains.

    Attributes:
        name: name for tables.
        smooth: whether the kinks of the network are removed. The weight net keeps its
            kinks, which are kinks in λ only.
        network: a name in :mod:`l2l_evograd.experiments.noisy_labels.networks`.
        batch_size: images of the training batch, and of the meta batch.
        image_size: side of the images in pixels.
        images_per_class: images of each of ten classes; a third of them are for the
            meta batches.
        wrong: rate of uniform label noise in the other two thirds.
        training: steps of SGD on the training images before the measurements.
        deltas: lengths δ of the steps of λ. A first step of Adam with learning rate
            10⁻³ moves the 301 numbers of the weight net by √301·10⁻³ = 0.017.
        draws: draws of a random method for each batch, at least 2.
        left_out: methods that would take too long.
    """

    name: str
    smooth: bool
    network: str = "small"
    batch_size: int = 50
    image_size: int = 20
    images_per_class: int = 60
    wrong: float = 0.4
    training: int = 60
    deltas: tuple[float, ...] = (0.017, 0.17)
    draws: int = 4
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Transforms:
    """Strengths of feature-wise transformation in a few-shot network.

    The inner loss is on an episode of one domain with the layers on. The outer loss is
    on an episode of another domain with the layers off.

    Attributes:
        name: name for tables.
        smooth: whether the kinks of the network are removed.
        backbone: a name in
            :mod:`l2l_evograd.experiments.crossdomain.networks.backbones`.
        head: a name in :mod:`l2l_evograd.experiments.crossdomain.networks.heads`.
        ways: classes of an episode.
        shots: support images of a class.
        queries: query images of a class.
        image_size: side of the images in pixels.
        images_per_class: images of each class in each domain.
        training: steps of Adam on episodes of both domains before the measurements.
        lr: η.
        deltas: lengths δ of the steps of λ.
        draws: draws of a random method for each batch, at least 2.
        left_out: methods that would take too long.
    """

    name: str
    smooth: bool
    backbone: str = "resnet10"
    head: str = "protonet"
    ways: int = 5
    shots: int = 5
    queries: int = 5
    image_size: int = 32
    images_per_class: int = 30
    training: int = 60
    lr: float = 1e-3
    deltas: tuple[float, ...] = (0.03, 0.3)
    draws: int = 4
    left_out: tuple[str, ...] = ()


Problem = SampleWeights | Transforms
Source = Callable[[int], Bilevel]


def train_source(config: Problem, device: torch.device = CPU) -> Source:
    """Train a problem's network, and return a function that makes a batch's problem.

    Args:
        config: the problem.
        device: device of the batches' problems; the network is trained on the CPU.

    Returns:
        Function that takes the number of a batch and makes a new
        :class:`~benchmarks.problems.Bilevel` in float64, with the trained weights and
        the images that belong to the number.
    """
    if isinstance(config, SampleWeights):
        return _sample_weights(config, device)
    return _transforms(config, device)


def smoothed(module: nn.Module) -> nn.Module:
    """Replace ReLU by softplus, and maxima by averages, in the module itself."""
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU):
            setattr(module, name, nn.Softplus())
        elif isinstance(child, nn.MaxPool2d):
            pool = nn.AvgPool2d(child.kernel_size, child.stride, child.padding)
            setattr(module, name, pool)
        else:
            smoothed(child)
    return module


def _sample_weights(config: SampleWeights, device: torch.device) -> Source:
    with seeded(derive_seed(config.name, "start"), CPU):
        network = make_network(config.network, _CLASSES)
        start = (smoothed(network) if config.smooth else network), MetaWeightNet()
    glyphs = _glyphs(config, _SEEN)
    shares: tuple[list[Tensor], list[Tensor]] = ([], [])
    labels: tuple[list[int], list[int]] = ([], [])
    for index, label in enumerate(glyphs.labels):
        if label < _CLASSES:
            role = int(index % 3 == 0)
            shares[role].append(glyphs[index][0])
            labels[role].append(label)
    x, meta_x = (torch.stack(images) for images in shares)
    draw = generator_for(config.name, "labels")
    y, _ = corrupt_labels(labels[0], "uniform", config.wrong, _CLASSES, draw)
    meta_y = torch.tensor(labels[1])

    def batch(role: str, number: int, count: int) -> Tensor:
        generator = generator_for(config.name, role, number)
        return torch.randperm(count, generator=generator)[: config.batch_size]

    optimizer = SGD(start[0].parameters(), lr=0.1, **_SGD)
    for step in range(config.training):
        own = batch("training", step, len(y))
        _train(optimizer, F.cross_entropy(start[0](x[own]), y[own]))
    optimizer.zero_grad()

    def problem(number: int) -> Bilevel:
        model, net = (part.to(device).double() for part in copy.deepcopy(start))
        chosen = batch("inner", number, len(y))
        meta = batch("outer", number, len(meta_y))
        images, meta_images = (
            part.to(device).double() for part in (x[chosen], meta_x[meta])
        )
        targets, meta_targets = y[chosen].to(device), meta_y[meta].to(device)

        inner, outer = weight_net_losses(
            net, (images, targets), (meta_images, meta_targets)
        )
        hyper = list(net.parameters())
        return Bilevel(
            model,
            inner,
            outer,
            [*hyper],
            SGD(model.parameters(), lr=0.1),
            SGD(hyper, lr=1e-3, **_SGD),
            lr=0.1,
            base_step="after",
            outside=net,
        )

    return problem


def _transforms(config: Transforms, device: torch.device) -> Source:
    with seeded(derive_seed(config.name, "start"), CPU):
        backbone = make_backbone(config.backbone, config.image_size, True)
        start = FewShotModel(backbone, make_head(config.head, backbone, config.ways))
    if config.smooth:
        smoothed(start)
    shape = (config.ways, config.shots, config.queries)
    samplers = {
        domain: EpisodeSampler(_glyphs(config, domain), *shape)
        for domain in (_SEEN, _UNSEEN)
    }

    def episode(domain: str, role: str, number: int) -> Episode:
        return samplers[domain].sample(derive_seed(config.name, role, number))

    optimizer = Adam(weights_and_transforms(start)[0], lr=1e-3)
    with seeded(derive_seed(config.name, "noise"), CPU):
        for step in range(config.training):
            shown = episode((_SEEN, _UNSEEN)[step % 2], "training", step)
            _train(optimizer, few_shot_loss(start, shown, config.ways))
    start.zero_grad()

    def problem(number: int) -> Bilevel:
        model = copy.deepcopy(start).to(device).double()
        seen = _on(device, episode(_SEEN, "inner", number))
        unseen = _on(device, episode(_UNSEEN, "outer", number))

        inner, outer = transforms_losses(seen, unseen, config.ways)
        weights, hyper = weights_and_transforms(model)
        return Bilevel(
            model,
            inner,
            outer,
            [*hyper],
            SGD(weights, lr=config.lr),
            Adam(hyper, lr=1e-2, weight_decay=1e-8),
            lr=config.lr,
            base_step="after",
        )

    return problem


def _glyphs(config: Problem, domain: str) -> Dataset:
    domains = built_in_domains(
        config.image_size, images_per_class=config.images_per_class
    )
    return domains[domain].splits["base"]


def _train(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _on(device: torch.device, episode: Episode) -> Episode:
    """Return an episode on a device, with images in float64."""
    moved = (part.to(device) for part in episode)
    return Episode(*(p.double() if p.is_floating_point() else p for p in moved))
