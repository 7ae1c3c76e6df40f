"""Calls on new problems, in each mode of a GPU session, and what is measured of them.

The modes are "float32", "bf16", "CUDA graph" (a whole step captured and replayed) and
"compiled".
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console

from benchmarks import learn2learn_methods, maml_tasks, meta_batches, methods
from benchmarks.gpu_measuring import (
    Fields,
    capturable,
    captured,
    cost_of,
    in_half_precision,
    synchronisations_of,
)
from benchmarks.maml_tasks import MamlConfig, maml_task
from benchmarks.measuring import Call
from benchmarks.meta_batches import MetaBatchConfig, meta_batch
from benchmarks.methods import ours
from benchmarks.problems import (
    TransformsConfig,
    WeightNetConfig,
    transforms_problem,
    weight_net_problem,
)
from l2l_evograd import Guided
from l2l_evograd.experiments.noisy_labels.experiment import NoisyLabelExperiment
from l2l_evograd.experiments.noisy_labels.images import ImageSource
from l2l_evograd.experiments.noisy_labels.settings import NoisyLabelSettings
from l2l_evograd.experiments.noisy_labels.sources import read_source
from l2l_evograd.experiments.precision import estimator_for

HIGHER, FORWARD_MODE = "second order (higher)", "exact, forward mode"
GUIDED, EVOGRAD = "guided, central", "evograd, K = 2"

_BILEVEL: dict[str, Any] = {**methods.METHODS, **learn2learn_methods.METHODS}
# The step of guided differences must be larger in half precision.
_HALF_METHODS = {GUIDED: ours(estimator_for("bf16", Guided()))}

# ResNet-10 in the paper's figure 3, on a Titan X: GB and seconds of 100 episodes.
_PUBLISHED = {
    (1, HIGHER): (8.3, 167.3),
    (1, EVOGRAD): (4.8, 92.3),
    (5, HIGHER): (8.5, 254.7),
    (5, EVOGRAD): (5.3, 115.8),
}


def bilevel_call(
    config: WeightNetConfig | TransformsConfig,
    method: str,
    device: torch.device,
    mode: str = "float32",
) -> Call:
    """Return a call of a method on a new bilevel problem."""
    build: Callable[..., Any] = transforms_problem
    if isinstance(config, WeightNetConfig):
        build = weight_net_problem
    known = {**_BILEVEL, **_HALF_METHODS} if mode == "bf16" else _BILEVEL
    return _in_mode(build(config, device, torch.contiguous_format), known, method, mode)


def maml_call(config: MamlConfig, method: str, device: torch.device, mode: str) -> Call:
    """Return a call of a method on a new MAML task."""
    task = maml_task(config, device, torch.contiguous_format)
    return _in_mode(task, maml_tasks.METHODS, method, mode)


def meta_batch_call(config: MetaBatchConfig, method: str, device: torch.device) -> Call:
    """Return a call of a method on a new meta-batch."""
    batch = meta_batch(config, device, torch.contiguous_format)
    return _in_mode(batch, meta_batches.METHODS, method, "float32")


def _in_mode(
    problem: Any, known: Mapping[str, Callable[[Any], Any]], method: str, mode: str
) -> Call:
    if mode == "bf16":
        in_half_precision(problem, problem.weights[0].device)
    if mode in ("CUDA graph", "compiled"):
        capturable(problem)
    call = partial(known[method], problem)
    if mode == "CUDA graph":
        return captured(call)
    compiled: Call = torch.compile(call) if mode == "compiled" else call
    return compiled


def cost_of_new(
    make: Callable[[], Call], device: torch.device, rounds: int, calls: int = 2
) -> Fields:
    """Make a call, and return its seconds and memory."""
    return cost_of(make(), device, rounds, calls)


def waits_of_new(make: Callable[[], Call]) -> Fields:
    """Make a call, and return how often it waits for the GPU."""
    return synchronisations_of(make())


def paper_cost(
    config: TransformsConfig, method: str, device: torch.device, rounds: int
) -> Fields:
    """Return a cost in the paper's units, and the published one."""
    fields = cost_of(bilevel_call(config, method, device), device, rounds)
    used = fields.get("allocated_bytes", fields["peak_bytes"])
    fields["gb"] = used / 1e9
    fields["seconds_per_100_episodes"] = 100 * fields["seconds"]
    published = _PUBLISHED.get((config.shots, method))
    if published is not None and config.backbone == "resnet10":
        keys = ("published_gb", "published_seconds_per_100_episodes")
        fields.update(zip(keys, published, strict=True))
    return fields


@cache
def _source(data: str | None, image_size: int | None) -> ImageSource:
    return read_source(data, image_size, Console(quiet=True))


def noisy_labels(
    chosen: Mapping[str, Any], device: torch.device, data: str | None, method: str
) -> Fields:
    """Train a method of the noisy-labels experiment.

    Args:
        chosen: settings that differ from the defaults.
        device: device of the training.
        data: folder of the images; None: glyphs.
        method: name of the method.
    """
    settings = NoisyLabelSettings(
        **chosen, methods=(method,), data=data, seeds=1, device=device.type
    )
    source = _source(data, settings.image_size)
    with TemporaryDirectory() as folder:
        experiment = NoisyLabelExperiment(
            settings, Path(folder) / "run", Console(quiet=True), source
        )
        (run,) = experiment.run().runs
    return {
        "seconds": run["seconds_per_iteration"],
        "peak_bytes": run["peak_memory_bytes"],
        "accuracy": run["last"],
        "iterations": settings.iterations,
    }
