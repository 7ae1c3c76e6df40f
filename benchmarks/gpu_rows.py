"""The rows of a GPU session, in order of worth."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import maml_tasks, meta_batches
from benchmarks.gpu_calls import (
    EVOGRAD,
    FORWARD_MODE,
    GUIDED,
    HIGHER,
    bilevel_call,
    cost_of_new,
    maml_call,
    meta_batch_call,
    noisy_labels,
    paper_cost,
    waits_of_new,
)
from benchmarks.gpu_measuring import Fields
from benchmarks.maml_tasks import MamlConfig
from benchmarks.meta_batches import OMNIGLOT, SINE, MetaBatchConfig
from benchmarks.methods import PLAIN_STEP
from benchmarks.overhead_tasks import Network
from benchmarks.problems import TransformsConfig, WeightNetConfig

_TABLE = (
    *(PLAIN_STEP, HIGHER, "learn2learn, second order", "naive Algorithm 1", EVOGRAD),
    *("guided, forward", GUIDED, "exact", FORWARD_MODE, "exact, double backward"),
)
_MAML = tuple(name for name in maml_tasks.METHODS if "Algorithm 1" not in name)
_MAML_CAPTURED = (PLAIN_STEP, "first order", "exact", "exact, graphs kept")
_HALF = (PLAIN_STEP, HIGHER, EVOGRAD, GUIDED, FORWARD_MODE, "exact, double backward")
# Not evograd: a replay would draw the perturbations of the capture again.
_CAPTURED = (PLAIN_STEP, GUIDED, "guided, forward", FORWARD_MODE, "exact")
_COMPILED = (PLAIN_STEP, GUIDED, FORWARD_MODE)
_LARGE = (PLAIN_STEP, HIGHER, "exact", FORWARD_MODE, GUIDED, EVOGRAD)
_GROWTH = (HIGHER, FORWARD_MODE, GUIDED, EVOGRAD)


class Row(NamedTuple):
    """A row that can be measured.

    Attributes:
        section: what it belongs to.
        problem: name of the problem.
        method: name of the method.
        mode: how it runs, such as "float32" or "CUDA graph".
        cost: rough seconds of its measurement; None: unknown.
        measure: function that returns the fields of its record.
        cuda_only: whether it needs CUDA.
        after: the same row at a smaller size; this one is skipped if that one ran out
            of memory.
    """

    section: str
    problem: str
    method: str
    mode: str
    cost: float | None
    measure: Callable[[], Fields]
    cuda_only: bool = False
    after: "Row | None" = None

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells the row from all others."""
        return self[:4]


@dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
        bilevel: bilevel problems by name.
        maml: MAML problems by name.
        large: backbones, shots and image side of the paper's cost figures.
        growth: episodes that grow.
        sizes: query images of a class in the growing episodes, ascending.
        batches: meta-batches.
        noisy: settings of the noisy-labels experiment that differ from the defaults.
        noisy_methods: its methods.
        rounds: number of timed calls.
    """

    bilevel: Mapping[str, WeightNetConfig | TransformsConfig] = field(
        default_factory=lambda: {
            "Meta-Weight-Net, ResNet-32, 32 px": WeightNetConfig(),
            "LFT, ResNet-10, 84 px": TransformsConfig(),
        }
    )
    maml: Mapping[str, MamlConfig] = field(
        default_factory=lambda: {
            "MAML, CNN4, 1 step": MamlConfig(1),
            "MAML, CNN4, 5 steps": MamlConfig(5),
        }
    )
    large: tuple[TransformsConfig, ...] = (
        TransformsConfig("resnet10", image_size=224),
        TransformsConfig("resnet34", image_size=224),
        TransformsConfig("resnet18", image_size=224),
        TransformsConfig("resnet10", shots=1, image_size=224),
    )
    growth: TransformsConfig = TransformsConfig("resnet34", image_size=224)
    sizes: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    batches: tuple[MetaBatchConfig, ...] = (SINE, OMNIGLOT)
    noisy: Mapping[str, Any] = field(default_factory=lambda: {"iterations": 300})
    noisy_methods: tuple[str, ...] = ("baseline", "guided", "exact", "evograd")
    rounds: int = 10


_TINY = TransformsConfig("cnn4", "relationnet", 2, 1, 2, image_size=16)
CONFIGS = {
    "full": Config(),
    "smoke": Config(
        bilevel={
            "Meta-Weight-Net, small": WeightNetConfig("small", 8, 20),
            "LFT, CNN4": _TINY,
        },
        maml={"MAML, narrow": MamlConfig(1, 2, 2, 2, image_size=16, hidden=4)},
        large=(_TINY,),
        growth=_TINY,
        sizes=(2, 4),
        batches=(MetaBatchConfig(Network("MLP, narrow", "mlp", 4, 3, 0.01), 2, 3),),
        noisy={
            "iterations": 2,
            "train_images": 40,
            "test_images": 20,
            "batch_size": 10,
        },
        noisy_methods=("baseline",),
        rounds=1,
    ),
}


def rows_of(config: Config, device: torch.device, data: str | None) -> Iterator[Row]:
    """Yield all rows, in order of worth.

    Args:
        config: what is measured.
        device: device of the measurements.
        data: folder of the images of the noisy-labels experiment; None: glyphs.
    """
    yield from _tables(config, device)
    yield from _paper(config, device)
    yield from _growing(config, device)
    yield from _meta_batches(config, device)
    for name, problem in config.bilevel.items():
        for method in _TABLE:
            make = partial(bilevel_call, problem, method, device)
            measure = partial(waits_of_new, make)
            yield Row("synchronisations", name, method, "float32", 2, measure, True)
    for name, problem in config.bilevel.items():
        for method in _COMPILED:
            make = partial(bilevel_call, problem, method, device, "compiled")
            measure = partial(cost_of_new, make, device, config.rounds)
            yield Row("tables", name, method, "compiled", 60, measure, True)
    for method in config.noisy_methods:
        measure = partial(noisy_labels, config.noisy, device, data, method)
        cost = 0.2 * config.noisy["iterations"]
        name = "built-in glyphs" if data is None else Path(data).name
        yield Row("noisy labels", name, method, "float32", cost, measure)


def _tables(config: Config, device: torch.device) -> Iterator[Row]:
    modes: tuple[tuple[str, Sequence[str], Sequence[str]], ...] = (
        ("float32", _TABLE, _MAML),
        ("CUDA graph", _CAPTURED, _MAML_CAPTURED),
        ("bf16", _HALF, _MAML),
    )
    for mode, of_bilevel, of_maml in modes:
        only = mode == "CUDA graph"
        for name, problem in config.bilevel.items():
            for method in of_bilevel:
                make = partial(bilevel_call, problem, method, device, mode)
                measure = partial(cost_of_new, make, device, config.rounds)
                yield Row("tables", name, method, mode, 4, measure, only)
        for name, task in config.maml.items():
            for method in of_maml:
                make = partial(maml_call, task, method, device, mode)
                measure = partial(cost_of_new, make, device, config.rounds)
                yield Row("tables", name, method, mode, 4, measure, only)


def _paper(config: Config, device: torch.device) -> Iterator[Row]:
    for problem in config.large:
        for method in _LARGE:
            measure = partial(paper_cost, problem, method, device, config.rounds)
            yield Row("paper", _name(problem), method, "float32", 8, measure)


def _growing(config: Config, device: torch.device) -> Iterator[Row]:
    for method in _GROWTH:
        smaller = None
        for queries in config.sizes:
            problem = replace(config.growth, queries=queries)
            make = partial(bilevel_call, problem, method, device)
            measure = partial(cost_of_new, make, device, 1, 1)
            cost = 4 + queries / 16
            name = f"{_name(problem)}, {queries} queries"
            row = Row("growth", name, method, "float32", cost, measure, False, smaller)
            yield row
            smaller = row


def _meta_batches(config: Config, device: torch.device) -> Iterator[Row]:
    for batch in config.batches:
        for method in meta_batches.METHODS:
            make = partial(meta_batch_call, batch, method, device)
            measure = partial(cost_of_new, make, device, config.rounds)
            yield Row("meta-batch", batch.name, method, "float32", 6, measure)


def _name(problem: TransformsConfig) -> str:
    return (
        f"LFT, {problem.backbone}, {problem.image_size} px, {problem.ways} ways, "
        f"{problem.shots} shots"
    )
