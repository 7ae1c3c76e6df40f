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
import torch
from photographs import make_domain
from torch import Tensor

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.crossdomain.data.domains import read_domains
from l2l_evograd.experiments.crossdomain.data.episodes import EpisodeSampler
from l2l_evograd.experiments.crossdomain.data.loading import Ahead, WorkerError
from l2l_evograd.seeds import derive_seed, seeded


class Made(NamedTuple):
    images: Tensor
    more: dict[str, list[Tensor]]


def draw(iteration: int) -> Made:
    with seeded(derive_seed(7, iteration)):
        return Made(torch.rand(3, 2), {"labels": [torch.randint(9, (4,))]})


def same(one: Made, other: Made) -> bool:
    return torch.equal(one.images, other.images) and torch.equal(
        one.more["labels"][0], other.more["labels"][0]
    )


def taken(make, start, stop, workers):
    with contextlib.closing(Ahead(make, stop, workers)) as ahead:
        return [ahead.take(number) for number in range(start, stop)]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_items_are_the_same_with_any_number_of_workers(workers):
    items = taken(draw, 3, 14, workers)
    assert all(type(made) is Made for made in items)
    assert all(same(made, draw(3 + place)) for place, made in enumerate(items))
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_episodes_of_augmented_photographs_are_the_same(tmp_path, workers):
    make_domain(tmp_path, size=(50, 40))
    base = read_domains(tmp_path, 16)["birds"].splits["base"].augmented()
    sampler = EpisodeSampler(base, 2, 1, 1)

    def make(iteration):
        with seeded(iteration):
            return sampler.sample(iteration)

    expected = [make(iteration) for iteration in range(4)]
    for own, episode in zip(expected, taken(make, 0, 4, workers), strict=True):
        assert all(map(torch.equal, own, episode))
    assert not torch.equal(expected[0].query_x, expected[1].query_x)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_random_states_of_this_process_stay(workers):
    before = random.getstate(), torch.get_rng_state(), np.random.get_state()
    taken(draw, 0, 5, workers)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert np.array_equal(np.random.get_state()[1], before[2][1])


@pytest.mark.parametrize("workers", [0, 1])
def test_items_are_made_on_one_thread_without_gradients(workers):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        made = taken(
            lambda _: (torch.get_num_threads(), torch.is_grad_enabled()), 0, 2, workers
        )
        assert made == [(1, False)] * 2
        assert torch.get_num_threads() == 2 and torch.is_grad_enabled()
    finally:
        torch.set_num_threads(before)


def test_without_workers_items_are_made_when_they_are_asked_for():
    made: list[int] = []
    ahead = Ahead(made.append, 5)
    ahead.take(0)
    ahead.take(1)
    assert made == [0, 1]


def test_workers_are_ahead_by_two_items_each(tmp_path):
    def make(iteration):
        (tmp_path / str(iteration)).touch()

    with contextlib.closing(Ahead(make, 50, 1)) as ahead:
        ahead.take(0)
        deadline = time.monotonic() + 20
        while not (tmp_path / "2").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
        assert {path.name for path in tmp_path.iterdir()} == {"0", "1", "2"}


class Counting:
    """Counts how often this process has been asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, iteration: int) -> torch.Tensor:
        self.calls += 1
        return torch.tensor([iteration, self.calls])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_worker_stays_from_one_iteration_to_the_next(workers: int):
    ahead = Ahead(Counting(), 10, workers)
    try:
        found = [ahead.take(iteration).tolist() for iteration in (2, 3, 4)]
        assert found == [[2, 1], [3, 2], [4, 3]]
        assert ahead.take(7)[0] == 7
        assert ahead.take(8)[0] == 8
    finally:
        ahead.close()
    ahead.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_error_of_a_worker_arrives_as_it_does_without_workers(tmp_path, workers):
    folder = make_domain(tmp_path)
    (folder / "images" / "1-0.png").write_text("no image")
    base = read_domains(tmp_path, 16)["birds"].splits["base"]
    message = r"^the image \S+1-0\.png cannot be opened \(cannot .*base\.json$"
    with contextlib.closing(Ahead(base.__getitem__, 4, workers)) as ahead:
        assert [ahead.take(number)[1] for number in (0, 1)] == [0, 0]
        with pytest.raises(InputError, match=message) as error:
            ahead.take(2)
    assert error.type is InputError
    assert multiprocessing.active_children() == []


HERE = os.getpid()


def only_without_workers(_: int) -> None:
    if os.getpid() != HERE:
        raise OSError("not here")


def no_item(_: int) -> object:
    return lambda: None  # cannot be sent to another process


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (only_without_workers, r"this process can \(OSError: not here\); use fewer"),
        # Python 3.12 says "Can't pickle local object", 3.13 "Can't get local object".
        (no_item, r"this process can \(.*local object.*\); use fewer workers, or none"),
    ],
)
def test_what_only_workers_fail_at_is_reported(make, message):
    with pytest.raises(WorkerError, match=f"could not make iteration 2, .*{message}"):
        taken(make, 2, 4, 1)


def own_number(_: int) -> Tensor:
    return torch.tensor(os.getpid())


def test_a_worker_that_is_killed_is_reported_when_its_item_is_waited_for():
    message = (
        r"^a worker process died before it made iteration \d, for example because "
        r"memory ran out; use fewer workers, or none \(workers 0\), or .*/dev/shm"
    )
    ahead = Ahead(own_number, 50, 2)
    os.kill(int(ahead.take(0)), signal.SIGKILL)
    time.sleep(0.3)  # a step, which the news does not interrupt
    with pytest.raises(WorkerError, match=message):
        for iteration in range(1, 10):
            ahead.take(iteration)
    assert multiprocessing.active_children() == []


def leave(_: int) -> None:
    if os.getpid() != HERE:
        os._exit(3)


def test_a_worker_that_leaves_is_reported():
    with pytest.raises(
        WorkerError, match="a worker process died before it made iteration 0"
    ):
        taken(leave, 0, 3, 1)


def test_closing_early_ends_the_workers():
    with contextlib.closing(Ahead(own_number, 50, 2)) as ahead:
        worker = int(ahead.take(0))
        assert worker in [p.pid for p in multiprocessing.active_children()]
    assert multiprocessing.active_children() == []


def reading(folder: Path) -> None:
    """Take items with workers, as a process of its own with its own group."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    noise = (folder / "noise").open("w")
    os.dup2(noise.fileno(), 1)
    os.dup2(noise.fileno(), 2)
    sys.stdout = sys.stderr = noise
    seen = set()
    ahead = Ahead(own_number, 10**6, 2)
    try:
        for iteration in range(10**6):
            seen.add(int(ahead.take(iteration)))
            if len(seen) == 2:
                (folder / "unfinished").write_text(" ".join(map(str, seen)))
                (folder / "unfinished").replace(folder / "workers")
            time.sleep(0.01)
    except KeyboardInterrupt:
        ahead.close()
        sys.exit(130)


def started(folder: Path) -> tuple[multiprocessing.Process, list[int]]:
    process = multiprocessing.get_context("fork").Process(
        target=reading, args=(folder,)
    )
    process.start()
    deadline = time.monotonic() + 60
    while not (folder / "workers").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return process, [int(n) for n in (folder / "workers").read_text().split()]


def test_ctrl_c_leaves_no_process_and_no_noise(tmp_path):
    process, workers = started(tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    assert (tmp_path / "noise").read_text() == ""
    assert len(workers) == 2
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def alive(worker: int) -> bool:
    try:
        state = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_workers_end_when_their_process_is_killed(tmp_path):
    process, workers = started(tmp_path)
    process.kill()
    process.join(60)
    deadline = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(workers) == 2 and not any(map(alive, workers))


@pytest.mark.parametrize("workers", [-1, 0.5])
def test_impossible_numbers_of_workers_are_refused(workers):
    with pytest.raises(InputError, match=f"workers to be a whole .*got {workers}"):
        Ahead(draw, 3, workers)
