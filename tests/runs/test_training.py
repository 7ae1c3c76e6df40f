import signal
from pathlib import Path

import pytest
import torch
from consoles import silent_console
from rich.console import Console
from torch import nn

from l2l_evograd.runs.module import Numbered, RecordingModule
from l2l_evograd.runs.randomness import seeded
from l2l_evograd.runs.training import train

CPU = torch.device("cpu")
ITERATIONS, BLOCK = 7, 2


class Regression(RecordingModule):
    """A random problem at every iteration, to be told from another by its numbers."""

    def __init__(
        self,
        stop_at: int | None = None,
        signal_at: int | None = None,
        kind: signal.Signals = signal.SIGINT,
    ):
        super().__init__()
        with seeded(0, CPU):
            self.layer = nn.Linear(3, 1)
        self.stop_at = stop_at
        self.signal_at = signal_at
        self.kind = kind

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return Numbered(self.done, min(self.done + BLOCK, ITERATIONS))

    def iterate(self, iteration: int) -> float:
        if iteration == self.stop_at:
            raise RuntimeError("killed")
        if iteration == self.signal_at:
            signal.raise_signal(self.kind)
        optimizer = self.optimizers(use_pl_optimizer=False)
        with seeded(iteration, self.device):
            loss = (self.layer(torch.randn(8, 3)) - torch.randn(8, 1)).square().mean()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return float(loss.detach())


def run(module: Regression, out: Path, console: Console | None = None, **changes):
    train(
        module,
        name="regression",
        epochs=-(-ITERATIONS // BLOCK),
        iterations=ITERATIONS,
        out=out,
        device=CPU,
        console=console or silent_console(),
        **changes,
    )
    return module


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.mark.parametrize("stop_at", [1, 2, 3, 6])
def test_a_run_that_was_killed_goes_on_bit_for_bit(stop_at: int, tmp_path):
    whole = run(Regression(), tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        run(Regression(stop_at), tmp_path / "parts")
    rest = run(Regression(), tmp_path / "parts")
    assert rest.losses == whole.losses
    assert len(rest.seconds) == ITERATIONS
    assert torch.equal(weights(rest), weights(whole))


def test_a_run_that_ended_is_read_and_not_made_again(tmp_path):
    whole = run(Regression(), tmp_path)
    again = run(Regression(stop_at=0), tmp_path)
    assert again.losses == whole.losses
    assert torch.equal(weights(again), weights(whole))


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_an_interrupt_and_stays_alive(kind: signal.Signals, tmp_path):
    before = signal.getsignal(kind)
    with pytest.raises(KeyboardInterrupt):
        run(Regression(signal_at=3, kind=kind), tmp_path / "parts")
    assert signal.getsignal(kind) == before
    rest, whole = run(Regression(), tmp_path / "parts"), run(Regression(), tmp_path)
    assert rest.losses == whole.losses


def test_an_exit_that_no_interrupt_caused_stays_an_exit(tmp_path):
    class Leaving(Regression):
        def iterate(self, iteration: int) -> float:
            raise SystemExit(3)

    with pytest.raises(SystemExit):
        run(Leaving(), tmp_path)


def test_only_whole_checkpoints_lie_about(tmp_path):
    run(Regression(), tmp_path)
    names = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert names == ["regression.ckpt"]


def test_every_iteration_is_logged(tmp_path):
    module = run(Regression(), tmp_path)
    (log,) = (tmp_path / "logs").rglob("metrics.csv")
    lines = log.read_text().splitlines()
    assert len(lines) == 1 + ITERATIONS
    assert set(lines[0].split(",")) == {"step", "loss", "seconds"}
    assert f"{module.losses[0]}" in lines[1]


def test_the_function_is_called_before_and_after_every_block(tmp_path):
    calls: list[int] = []
    run(Regression(), tmp_path, after_epoch=calls.append)
    assert calls == [0, 2, 4, 6, 7]


def test_a_progress_bar_shows_on_a_terminal(tmp_path):
    console = Console(file=silent_console().file, force_terminal=True, width=100)
    run(Regression(), tmp_path, console)
    assert "regression" in console.file.getvalue()  # type: ignore[attr-defined]


def test_training_says_nothing_of_its_own(tmp_path, capfd):
    run(Regression(), tmp_path)
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


def test_the_random_state_is_as_before(tmp_path):
    before = torch.get_rng_state()
    run(Regression(), tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_module_has_to_say_what_an_iteration_is():
    with pytest.raises(NotImplementedError, match="iterate"):
        RecordingModule().iterate(0)
