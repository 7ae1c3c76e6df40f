"""Problems, methods and configurations of the cost benchmark."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch

from benchmarks import (
    algorithms,
    betty_methods,
    learn2learn_methods,
    maml_tasks,
    meta_batches,
    methods,
    torchopt_methods,
)
from benchmarks.algorithms import AlgorithmsConfig
from benchmarks.maml_tasks import MamlConfig, maml_task
from benchmarks.measuring import Call
from benchmarks.meta_batches import OMNIGLOT, SINE, MetaBatchConfig, meta_batch
from benchmarks.methods import PLAIN_STEP
from benchmarks.overhead_tasks import Network
from benchmarks.problems import (
    TransformsConfig,
    WeightNetConfig,
    transforms_problem,
    weight_net_problem,
)

AnyMethod = Callable[[Any], Any]
ProblemConfig = WeightNetConfig | TransformsConfig | MamlConfig | MetaBatchConfig
_Named = tuple[str, ProblemConfig]

LAYOUTS = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}

_BILEVEL: dict[str, AnyMethod] = {
    **methods.METHODS,
    **learn2learn_methods.METHODS,
    **torchopt_methods.METHODS,
    **betty_methods.METHODS,
}
# In LFT the base step always comes first.
_TRANSFORMS = {n: m for n, m in _BILEVEL.items() if n != "guided, base first"}
_MAML: dict[str, AnyMethod] = {
    **maml_tasks.METHODS,
    **torchopt_methods.MAML_METHODS,
    **betty_methods.MAML_METHODS,
}
_META_BATCH: dict[str, AnyMethod] = {
    **meta_batches.METHODS,
    **torchopt_methods.META_BATCH_METHODS,
}
_ALGORITHMS: dict[str, AnyMethod] = {**algorithms.METHODS}
ALL_METHODS = tuple({**_BILEVEL, **_MAML, **_META_BATCH, **_ALGORITHMS})

# These methods get the contiguous layout: second derivatives of batch normalisation are
# slow with the channels last. All others get the channels last.
_CONTIGUOUS_PEERS = (
    "second order (higher)",
    "learn2learn, second order",
    "TorchOpt, unrolled",
    "TorchOpt, implicit",
    "Betty, neumann",
    "Betty, cg",
)
_CONTIGUOUS_BILEVEL = (*_CONTIGUOUS_PEERS, "exact, double backward")
_CONTIGUOUS_MAML = (
    *_CONTIGUOUS_PEERS,
    "exact",
    "exact, graphs kept",
    "exact, computed again",
)


@dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
        problems: names and configurations of problems.
        methods: names of methods; None: all methods of each problem.
        rounds: timed calls of each method; one call before them is not timed.
        device: "cpu" or "cuda".
        threads: number of PyTorch's threads on a CPU.
        fresh: whether each method runs in a process of its own to measure memory in two
            calls, and then operations in a third. False: one call each in this process.
            That is faster, but the memory that earlier methods left behind changes the
            peak, so it is for trials only.
        layout: memory layout of all methods, a name in :data:`LAYOUTS`; None: the one
            in which each method is faster.
    """

    problems: tuple[tuple[str, ProblemConfig], ...]
    methods: tuple[str, ...] | None = None
    rounds: int = 3
    device: str = "cpu"
    threads: int = 2
    fresh: bool = True
    layout: str | None = None


def _transforms(depth: int, side: int) -> _Named:
    config = TransformsConfig(f"resnet{depth}", image_size=side)
    return f"LFT, ResNet-{depth}, {side} px", config


def _maml(steps: int) -> _Named:
    plural = "" if steps == 1 else "s"
    return f"MAML, CNN4, {steps} step{plural}", MamlConfig(steps)


def _meta_batches(*configs: MetaBatchConfig) -> tuple[_Named, ...]:
    return tuple((config.name, config) for config in configs)


_WEIGHT_NET = ("Meta-Weight-Net, ResNet-32, 32 px", WeightNetConfig())
_ALL_MAML = tuple(_maml(steps) for steps in (1, 5, 10))
_MANY_CANDIDATES = ("Algorithm 1, K = 8", "Algorithm 1, K = 32", "evograd, K = 32")
_FEW_CANDIDATES = tuple(m for m in ALL_METHODS if m not in _MANY_CANDIDATES)
_LARGE = (
    *(_transforms(depth, 84) for depth in (18, 34)),
    *(_transforms(depth, 224) for depth in (10, 18, 34)),
)

CONFIGS = {
    "default": Config((_WEIGHT_NET, _transforms(10, 84), _maml(1))),
    # A single round, because a step can take a minute.
    "maml-steps": Config(
        (_maml(5), _maml(10)),
        methods=_FEW_CANDIDATES,
        rounds=1,
    ),
    "algorithms": Config(
        tuple((c.name, c) for c in map(AlgorithmsConfig, (5, 10))), rounds=5
    ),
    "meta-batch": Config(_meta_batches(SINE, OMNIGLOT), rounds=5),
    "lft-large": Config(
        _LARGE,
        methods=(
            PLAIN_STEP,
            "naive Algorithm 1",
            "second order (higher)",
            "evograd, K = 2",
            "guided, forward",
            "guided, central",
            "exact",
            "exact, forward mode",
            "exact, double backward",
        ),
        rounds=1,
    ),
    "gpu": Config(
        (_WEIGHT_NET, _transforms(10, 84), *_LARGE, *_ALL_MAML),
        rounds=10,
        device="cuda",
    ),
    "smoke": Config(
        (
            ("Meta-Weight-Net, small", WeightNetConfig("small", 8, 20)),
            (
                "LFT, CNN4",
                TransformsConfig("cnn4", "relationnet", 2, 1, 2, image_size=16),
            ),
            ("MAML, narrow", MamlConfig(1, 2, 2, 2, image_size=16, hidden=4)),
            ("Algorithms, narrow", AlgorithmsConfig(2, 2, 1, 2, 16, hidden=4)),
            *_meta_batches(
                MetaBatchConfig(Network("MLP, narrow", "mlp", 4, 3, 0.01), 2, 3),
                MetaBatchConfig(Network("CNN, narrow", "omniglot", 2, 3, 0.5), 1, 3),
            ),
        ),
        methods=_FEW_CANDIDATES,
        rounds=1,
        threads=1,
        fresh=False,
    ),
}


class Family(NamedTuple):
    """A kind of problem.

    Attributes:
        build: function of a configuration, a device and a memory layout that makes a
            new problem.
        methods: methods by name, the plain step first.
        reference: name of an exact method that gradients are compared with.
        contiguous: names of the methods that get the contiguous layout.
    """

    build: Callable[..., Any]
    methods: Mapping[str, AnyMethod]
    reference: str
    contiguous: Collection[str]


_FAMILIES: dict[type, Family] = {
    WeightNetConfig: Family(
        weight_net_problem, _BILEVEL, "exact, double backward", _CONTIGUOUS_BILEVEL
    ),
    TransformsConfig: Family(
        transforms_problem, _TRANSFORMS, "exact, double backward", _CONTIGUOUS_BILEVEL
    ),
    MamlConfig: Family(maml_task, _MAML, "learn2learn, second order", _CONTIGUOUS_MAML),
    AlgorithmsConfig: Family(
        maml_task, _ALGORITHMS, "learn2learn, second order", tuple(_ALGORITHMS)
    ),
    MetaBatchConfig: Family(
        meta_batch, _META_BATCH, "learn2learn, second order", tuple(_META_BATCH)
    ),
}


def family_of(problem: ProblemConfig) -> Family:
    """Return the family that a configuration belongs to."""
    return _FAMILIES[type(problem)]


def method_on_new_problem(
    problem: ProblemConfig, method: str, device: torch.device, layout: str | None = None
) -> Call:
    """Make a configuration's problem, and return a call of a method on it.

    Args:
        problem: the configuration.
        method: name of the method.
        device: device of the problem.
        layout: as in :class:`Config`.
    """
    family = family_of(problem)
    if layout is None:
        layout = "contiguous" if method in family.contiguous else "channels_last"
    made = family.build(problem, device, LAYOUTS[layout])
    return partial(family.methods[method], made)
