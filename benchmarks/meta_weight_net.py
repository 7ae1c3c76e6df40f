"""Seconds and peak memory of one iteration with a Meta-Weight-Net, method by method.

    python -m benchmarks.meta_weight_net --json FILE
    python -m benchmarks.meta_weight_net --config smoke

Every method makes the same iteration on the same batches: weights of the samples by a
weight net, a virtual step, the hypergradient, a step of the weight net, a step of the
weights. Beside ours stand the paper's Algorithm 1 written down line by line, and
second order through ``higher``. Each has the network in the memory layout in which it
is faster. Rounds are interleaved, so that a machine which slows
down slows all methods down; memory is measured in a process of its own.
"""

import argparse
import copy
import dataclasses
import multiprocessing
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import higher
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from l2l_evograd import Exact, Guided, bilevel_step
from l2l_evograd.memory import PeakMemory
from l2l_evograd.noisy_labels.methods import METHODS
from l2l_evograd.noisy_labels.networks import make_network
from l2l_evograd.noisy_labels.weighting import MetaWeightNet, weighted_loss
from l2l_evograd.runs.folder import write_json

SIGMA, TEMPERATURE, CANDIDATES = 1e-3, 0.05, 2


@dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
        network: a name of :mod:`l2l_evograd.noisy_labels.networks`.
        width: factor of its channels.
        batch_size: of the training and of the meta batch.
        image_size: side in pixels.
        rounds: iterations of each method that are timed, after one that is not.
        device: "cpu" or "cuda".
        threads: of PyTorch on a CPU.
        fresh: whether memory is measured in a process of its own; else what an earlier
            method has left counts, which is quicker and good for a trial alone.
    """

    network: str = "resnet32"
    width: int = 1
    batch_size: int = 100
    image_size: int = 32
    rounds: int = 7
    device: str = "cpu"
    threads: int = 2
    fresh: bool = True


CONFIGS = {
    "default": Config(),
    "smoke": Config("small", batch_size=8, image_size=20, rounds=1, fresh=False),
}


class Problem:
    """A network, a weight net, their optimizers and two batches.

    Args:
        config: what is measured.
        layout: of the convolutions.
    """

    def __init__(
        self, config: Config, layout: torch.memory_format = torch.channels_last
    ) -> None:
        torch.manual_seed(0)
        device = torch.device(config.device)
        self.model = make_network(config.network, 10, config.width)
        self.model.to(device, memory_format=layout)
        self.weight_net = MetaWeightNet().to(device)
        sgd = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
        self.base = torch.optim.SGD(self.model.parameters(), lr=0.1, **sgd)
        self.hyper = torch.optim.SGD(self.weight_net.parameters(), lr=1e-3, **sgd)
        shape = (config.batch_size, 3, config.image_size, config.image_size)
        self.x, self.meta_x = (torch.randn(shape, device=device) for _ in range(2))
        self.y, self.meta_y = (
            torch.randint(10, shape[:1], device=device) for _ in range(2)
        )

    def inner(self, model: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the weighted loss of the training batch."""
        losses = cross_entropy(model(self.x), self.y, reduction="none")
        return weighted_loss(losses, self.weight_net(losses))

    def outer(self, model: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the loss of the meta batch."""
        return cross_entropy(model(self.meta_x), self.meta_y)

    def steps(self, hypergradient: Any) -> None:
        """Make the step of the weight net and then that of the weights."""
        pairs = zip(self.weight_net.parameters(), hypergradient, strict=True)
        for parameter, grad in pairs:
            parameter.grad = grad
        self.hyper.step()
        plain(self)


def plain(problem: Problem) -> None:
    """Make one training step without any hypergradient."""
    parameters = list(problem.model.parameters())
    found = torch.autograd.grad(problem.inner(problem.model), parameters)
    for parameter, grad in zip(parameters, found, strict=True):
        parameter.grad = grad
    problem.base.step()


def naive(problem: Problem) -> None:
    """Make one iteration by Algorithm 1, line by line, candidates held side by side."""
    theta = {n: p.detach() for n, p in problem.model.named_parameters()}
    candidates, losses = [], []
    for _ in range(CANDIDATES):
        net = copy.deepcopy(problem.model)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(SIGMA * torch.randn_like(parameter).sign())
        candidates.append(dict(net.named_parameters()))
        losses.append(problem.inner(net))
    weights = torch.softmax(-torch.stack(losses) / TEMPERATURE, dim=0)
    merged = {
        name: sum(w * c[name] for w, c in zip(weights, candidates, strict=True))
        for name in theta
    }
    outer = problem.outer(lambda x: functional_call(problem.model, merged, (x,)))
    problem.steps(torch.autograd.grad(outer, list(problem.weight_net.parameters())))


def second_order(problem: Problem) -> None:
    """Make one iteration with the exact hypergradient through ``higher``."""
    optimizer = torch.optim.SGD(problem.model.parameters(), lr=0.1)
    with higher.innerloop_ctx(problem.model, optimizer) as (net, inner_optimizer):
        inner_optimizer.step(problem.inner(net))
        outer = problem.outer(net)
        found = torch.autograd.grad(outer, list(problem.weight_net.parameters()))
    problem.steps(found)


def ours(
    update: str, estimator: Any, base_step: str = "after"
) -> Callable[[Problem], None]:
    """Return one iteration by ``bilevel_step``."""

    def step(problem: Problem) -> None:
        bilevel_step(
            problem.model,
            problem.inner,
            problem.outer,
            problem.base,
            problem.hyper,
            update=update,
            estimator=estimator,
            base_step=base_step,
        )

    return step


STEPS: dict[str, Callable[[Problem], None]] = {
    "plain": plain,
    "naive Algorithm 1": naive,
    "second order (higher)": second_order,
    "evograd-paper": ours("evolution", METHODS["evograd-paper"].estimator),
    "evograd": ours("gradient", METHODS["evograd"].estimator),
    "guided": ours("gradient", Guided(scheme="forward")),
    "guided, central": ours("gradient", Guided()),
    "guided, old weights": ours("gradient", Guided(scheme="forward"), "before"),
    "exact": ours("gradient", Exact()),
}

# Second derivatives of batch normalisation are slow with the channels innermost.
CONTIGUOUS = ("second order (higher)", "exact")


def problem_of(method: str, config: Config) -> Problem:
    """Return a method's own problem, the same for all but for the layout."""
    contiguous = method in CONTIGUOUS
    layout = torch.contiguous_format if contiguous else torch.channels_last
    return Problem(config, layout)


def measure(config: Config) -> list[dict[str, Any]]:
    """Return one record for each method: median seconds, spread and peak memory."""
    torch.set_num_threads(config.threads)
    problems = {name: problem_of(name, config) for name in STEPS}
    seconds: dict[str, list[float]] = {name: [] for name in STEPS}
    for position in range(config.rounds + 1):
        for name, step in STEPS.items():
            started = time.perf_counter()
            step(problems[name])
            if config.device != "cpu":
                torch.cuda.synchronize()
            if position:
                seconds[name].append(time.perf_counter() - started)
    del problems
    return [
        {
            "method": name,
            "seconds": median(seconds[name]),
            "fastest": min(seconds[name]),
            "slowest": max(seconds[name]),
            "peak_bytes": _peak(config, name),
        }
        for name in STEPS
    ]


def _peak(config: Config, name: str) -> int:
    if not config.fresh:
        return _peak_here(config, name)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak_here, (config, name))


def _peak_here(config: Config, name: str) -> int:
    torch.set_num_threads(config.threads)
    problem = problem_of(name, config)
    with PeakMemory(torch.device(config.device)) as peak:
        for _ in range(2):
            STEPS[name](problem)
    return peak.bytes


def main() -> None:
    """Measure, print a table and write the records."""
    parser = argparse.ArgumentParser(description="Cost of Meta-Weight-Net iterations.")
    parser.add_argument("--config", choices=sorted(CONFIGS), default="default")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    config = dataclasses.replace(CONFIGS[arguments.config], device=arguments.device)
    records = measure(config)
    base = records[0]["seconds"]
    print(f"{'method':24}{'seconds':>10}{'x plain':>10}{'peak MiB':>10}")
    for record in records:
        mebibytes = record["peak_bytes"] / 2**20
        print(
            f"{record['method']:24}{record['seconds']:10.3f}"
            f"{record['seconds'] / base:10.2f}{mebibytes:10.0f}"
        )
    if arguments.json is not None:
        environment = {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "processor": platform.machine(),
            "threads": config.threads,
        }
        content = {
            "config": dataclasses.asdict(config),
            "environment": environment,
            "records": records,
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.json, content)


if __name__ == "__main__":
    main()
