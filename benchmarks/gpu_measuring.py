"""Time, memory, capture and synchronisations of one call on a GPU."""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.maml_tasks import MamlTask
from benchmarks.measuring import Call, timed
from benchmarks.problems import Bilevel
from l2l_evograd.experiments.precision import autocast
from l2l_evograd.oracle.peak_memory import PeakMemory

Fields = dict[str, Any]

_WARM_UPS = 3  # calls before a capture, as PyTorch's notes on CUDA graphs advise
_WAITS = "called a synchronizing CUDA operation"


def cost_of(call: Call, device: torch.device, rounds: int, calls: int = 2) -> Fields:
    """Return seconds and memory of a call.

    Args:
        call: the call.
        device: device that it runs on.
        rounds: number of timed calls.
        calls: number of calls before them, during which the memory is measured. The
            first call of an optimizer allocates its state.

    Returns:
        ``seconds``, ``fastest`` and ``slowest``; ``peak_bytes``, above the memory in
        use before the first call; and on CUDA ``allocated_bytes``, what
        ``torch.cuda.max_memory_allocated`` returns, as in the paper's measurements. A
        captured call has its memory before, so it counts in the latter alone.
    """
    with PeakMemory(device) as peak:
        for _ in range(calls):
            call()
    fields: Fields = {"peak_bytes": peak.bytes}
    if device.type == "cuda":
        fields["allocated_bytes"] = torch.cuda.max_memory_allocated(device)
    seconds = timed({"": call}, rounds, device)[""]
    return {
        "seconds": median(seconds),
        "fastest": min(seconds),
        "slowest": max(seconds),
        **fields,
    }


class HalfPrecision(nn.Module):
    """A network whose forward pass runs in bfloat16 under autocast.

    Args:
        network: the network.
        device: its device.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.network = network
        self.device = device

    def forward(self, *args: Any) -> Tensor:
        """Call the network, and return its outputs in single precision."""
        with autocast("bf16", self.device):
            outputs: Tensor = self.network(*args)
        return outputs.float()


def in_half_precision(problem: Any, device: torch.device) -> None:
    """Let the forward passes of a problem run in bfloat16 under autocast."""
    if isinstance(problem, MamlTask):
        problem.model = HalfPrecision(problem.model, device)
    elif isinstance(problem, Bilevel):
        problem.inner, problem.outer = (
            partial(_half, loss, device) for loss in (problem.inner, problem.outer)
        )
    else:
        raise TypeError(f"expected a Bilevel or a MamlTask, got {type(problem)}")


def _half(
    loss: Callable[[nn.Module], Tensor], device: torch.device, view: nn.Module
) -> Tensor:
    with autocast("bf16", device):
        return loss(view)


def capturable(problem: Any) -> None:
    """Let the optimizers of a new problem keep their state on the GPU."""
    for optimizer in vars(problem).values():
        if isinstance(optimizer, Optimizer) and "capturable" in optimizer.defaults:
            for group in optimizer.param_groups:
                group["capturable"] = True


def captured(call: Call) -> Call:
    """Capture a call in a CUDA graph, and return the call that replays it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UPS):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def synchronisations_of(call: Call) -> Fields:
    """Return how often a call waits for the GPU, and the lines that wait most.

    One call comes before the one that is counted.
    """
    call()
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    places: dict[str, int] = {}
    for one in caught:
        if _WAITS in str(one.message):
            place = f"{Path(one.filename).name}:{one.lineno}"
            places[place] = places.get(place, 0) + 1
    return {"synchronisations": sum(places.values()), "places": places}
