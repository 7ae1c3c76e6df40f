import contextlib
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from test_filelists import make_domain
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from l2l_evograd.fewshot.domains import read_domains
from l2l_evograd.fewshot.episodes import EpisodeSampler
from l2l_evograd.fewshot.loading import Ahead, WorkerError, iteration_loader
from l2l_evograd.runs.randomness import derive_seed, seeded

CPU = torch.device("cpu")

# Where there are fewer processors than workers.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


class Made(NamedTuple):
    images: Tensor
    more: dict[str, list[Tensor]]


def draw(iteration: int) -> Made:
    with seeded(derive_seed(7, iteration), CPU):
        return Made(torch.rand(3, 2), {"labels": [torch.randint(9, (4,))]})


def same(one: Made, other: Made) -> bool:
    return torch.equal(one.images, other.images) and torch.equal(
        one.more["labels"][0], other.more["labels"][0]
    )


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_items_come_in_order_and_are_the_same_with_any_number_of_workers(workers):
    loader = iteration_loader(draw, 3, 14, workers)
    assert len(loader) == 11
    for _ in range(2):
        items = list(loader)
        assert [iteration for iteration, _ in items] == list(range(3, 14))
        assert all(type(made) is Made for _, made in items)
        assert all(same(made, draw(iteration)) for iteration, made in items)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_episodes_of_augmented_photographs_are_the_same(tmp_path, workers):
    make_domain(tmp_path, size=(50, 40))
    base = read_domains(tmp_path, 16)["birds"].splits["base"].augmented()
    sampler = EpisodeSampler(base, 2, 1, 1)

    def make(iteration):
        with seeded(iteration, CPU):
            return sampler.sample(iteration)

    expected = [make(iteration) for iteration in range(4)]
    for iteration, episode in iteration_loader(make, 0, 4, workers):
        pairs = zip(episode, expected[iteration], strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
    assert not torch.equal(expected[0].query_x, expected[1].query_x)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_random_states_of_this_process_are_left_alone(workers):
    before = random.getstate(), torch.get_rng_state(), np.random.get_state()
    list(iteration_loader(draw, 0, 5, workers))
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert np.array_equal(np.random.get_state()[1], before[2][1])


@pytest.mark.parametrize("workers", [0, 1])
def test_items_are_made_on_one_thread_without_gradients(workers):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        loader = iteration_loader(
            lambda _: (torch.get_num_threads(), torch.is_grad_enabled()), 0, 2, workers
        )
        assert [made for _, made in loader] == [(1, False)] * 2
        assert torch.get_num_threads() == 2 and torch.is_grad_enabled()
    finally:
        torch.set_num_threads(before)


def test_without_workers_items_are_made_when_asked_for():
    made: list[int] = []
    items = iter(iteration_loader(made.append, 0, 5))
    next(items)
    next(items)
    assert made == [0, 1]


def test_workers_are_ahead_by_two_items_each(tmp_path):
    def make(iteration):
        (tmp_path / str(iteration)).touch()

    with contextlib.closing(iter(iteration_loader(make, 0, 50, 1))) as items:
        next(items)
        deadline = time.monotonic() + 20
        while not (tmp_path / "2").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
        assert {path.name for path in tmp_path.iterdir()} == {"0", "1", "2"}


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_what_a_worker_fails_with_arrives_as_without_workers(tmp_path, workers):
    folder = make_domain(tmp_path)
    (folder / "images" / "1-0.png").write_text("no image")
    base = read_domains(tmp_path, 16)["birds"].splits["base"]
    given = []
    message = r"^the image \S+1-0\.png does not open \(cannot .*base\.json$"
    with pytest.raises(ValueError, match=message) as error:
        for iteration, made in iteration_loader(base.__getitem__, 0, 4, workers):
            given.append((iteration, made[1]))
    assert error.type is ValueError
    assert given == [(0, 0), (1, 0)]
    assert multiprocessing.active_children() == []


def only_without_workers(_: int) -> None:
    if get_worker_info() is not None:
        raise KeyError("not here")


def no_item(_: int) -> object:
    return lambda: None  # no other process could be sent this


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (only_without_workers, r"could without \(KeyError: 'not here'\); use fewer"),
        (no_item, r"could without \(.*pickle.*\); use fewer workers, or none"),
    ],
)
def test_what_fails_in_workers_only_is_said(make, message):
    with pytest.raises(WorkerError, match=f"^iteration 2 .* {message}"):
        list(iteration_loader(make, 2, 4, 1))


def own_number(_: int) -> Tensor:
    return torch.tensor(os.getpid())


def test_a_worker_that_dies_is_reported_when_its_item_is_waited_for():
    message = (
        r"^a worker process was killed by SIGKILL before iteration \d was made, as "
        r"when memory runs out; use fewer workers, or none \(workers 0\), or .*/dev/shm"
    )
    steps = 0
    with pytest.raises(WorkerError, match=message) as error:
        for _, worker in iteration_loader(own_number, 0, 50, 2):
            os.kill(int(worker), signal.SIGKILL)
            time.sleep(0.3)  # a step, which the news does not interrupt
            steps += 1
    assert 1 <= steps <= 9
    assert error.value.__suppress_context__
    assert multiprocessing.active_children() == []


def leave(_: int) -> None:
    if get_worker_info() is not None:
        os._exit(3)


def test_a_worker_that_leaves_is_reported_with_its_exit_code():
    with pytest.raises(WorkerError, match="worker process ended with exit code 3 bef"):
        list(iteration_loader(leave, 0, 3, 1))


def test_too_many_processes_are_reported(monkeypatch):
    def refused(*_):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refused)
    with pytest.raises(
        WorkerError, match=r"^2 workers could not .* unavailable\); use"
    ):
        list(iteration_loader(draw, 0, 3, 2))


def test_leaving_early_ends_the_workers():
    with contextlib.closing(iter(iteration_loader(own_number, 0, 50, 2))) as items:
        _, worker = next(items)
        assert int(worker) in [p.pid for p in multiprocessing.active_children()]
    assert multiprocessing.active_children() == []


def held_back(_: int = 0) -> set[int]:
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, []))


def test_ctrl_c_reaches_this_process_alone():
    before = held_back()
    assert signal.SIGINT not in before
    with contextlib.closing(iter(iteration_loader(held_back, 0, 2, 1))) as items:
        assert signal.SIGINT in next(items)[1]
        assert held_back() == before


def interrupted(folder: Path) -> None:
    """Iterate with workers until Ctrl-C, as a process of its own with its own group."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    noise = (folder / "noise").open("w")
    os.dup2(noise.fileno(), 1)
    os.dup2(noise.fileno(), 2)
    sys.stdout = sys.stderr = noise
    seen = set()
    try:
        for _, worker in iteration_loader(own_number, 0, 10**6, 2):
            seen.add(int(worker))
            if len(seen) == 2:
                (folder / "unfinished").write_text(" ".join(map(str, seen)))
                (folder / "unfinished").replace(folder / "workers")
            time.sleep(0.01)
    except KeyboardInterrupt:
        sys.exit(130)


def test_ctrl_c_leaves_no_process_and_no_noise(tmp_path):
    process = multiprocessing.get_context("fork").Process(
        target=interrupted, args=(tmp_path,)
    )
    process.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "workers").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    assert (tmp_path / "noise").read_text() == ""
    workers = [int(number) for number in (tmp_path / "workers").read_text().split()]
    assert len(workers) == 2
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


@pytest.mark.parametrize("name", ["start", "stop", "workers"])
def test_numbers_that_are_none_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} to be at least 0, got -1"):
        iteration_loader(draw, **{"start": 0, "stop": 3, name: -1})
    with pytest.raises(TypeError, match=f"{name} to be a whole number, got 0.5"):
        iteration_loader(draw, **{"start": 0, "stop": 3, name: 0.5})


class Following(pl.LightningModule):
    """Notes what the trainer gives it."""

    def __init__(self, workers: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.layer = nn.Linear(1, 1)
        self.workers = workers
        self.given: list[tuple[int, Made]] = []

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        done = len(self.given)
        return iteration_loader(draw, done, done + 3, self.workers)

    def training_step(self, batch, batch_idx):
        self.given.append(batch)
        if len(self.given) == 5:
            raise ArithmeticError("in the midst of a step")


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.")
@pytest.mark.parametrize("workers", [0, 2])
def test_lightning_takes_it(workers):
    module = Following(workers)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        reload_dataloaders_every_n_epochs=1,
    )
    with pytest.raises(ArithmeticError, match="in the midst"):
        trainer.fit(module)
    assert [iteration for iteration, _ in module.given] == [0, 1, 2, 3, 4]
    assert all(same(made, draw(iteration)) for iteration, made in module.given)
    assert multiprocessing.active_children() == []


class Counting:
    """Says how often this process has been asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, iteration: int) -> torch.Tensor:
        self.calls += 1
        return torch.tensor([iteration, self.calls])


@pytest.mark.parametrize("workers", [0, 1])
def test_iterations_are_taken_by_number_from_one_loader(workers: int):
    ahead = Ahead(Counting(), 10, workers)
    try:
        # A worker goes on to count: it is the same one.
        found = [ahead.take(iteration).tolist() for iteration in (2, 3, 4)]
        assert found == [[2, 1], [3, 2], [4, 3]]
        assert ahead.take(7)[0] == 7
        assert ahead.take(8)[0] == 8
    finally:
        ahead.close()
    ahead.close()
    assert not multiprocessing.active_children()
