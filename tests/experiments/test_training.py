import signal

import pytest
import torch
from consoles import silent_console
from regression import ITERATIONS, Regression, run, weights
from rich.console import Console

from l2l_evograd.experiments.training_module import TrainingModule


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
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"regression.ckpt", "regression.previous.ckpt"}


def test_every_iteration_is_logged(tmp_path):
    module = run(Regression(), tmp_path)
    (log,) = (tmp_path / "logs").rglob("metrics.csv")
    lines = log.read_text().splitlines()
    assert len(lines) == 1 + ITERATIONS
    assert set(lines[0].split(",")) == {"step", "loss", "seconds"}
    assert f"{module.losses[0]}" in lines[1]


def test_the_function_is_called_before_and_after_every_block(tmp_path):
    calls: list[int] = []
    run(Regression(), tmp_path, after_block=calls.append)
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
        TrainingModule().iterate(0)
