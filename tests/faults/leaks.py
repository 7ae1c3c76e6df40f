"""Long runs of every job, in which memory and open files have to stay flat.

A job runs as a child process for many iterations. The resident memory and the open
file descriptors of all its processes are read while it trains. From the second quarter
of the training to the last one, neither may grow by more than lists of losses take.
"""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from faulty import SAME, Family, Fault
from sessions import Session
from whole_runs import data

# Growth that is no leak: of memory the larger one.
PART, BYTES = 0.02, 4 * 2**20
FILES = 2

ITERATIONS = 2000

_NOISY = (
    *("noisy-labels", "--image-size", "16", "--device", "cpu", "--batch-size", "20"),
    *("--train-images", "100", "--test-images", "50", "--meta-images", "20"),
    *("--seeds", "1"),
)
_CROSS = (
    *("crossdomain", "--image-size", "16", "--ways", "2", "--shots", "1"),
    *("--queries", "2", "--save-every", "100", "--episodes", "4", "--device", "cpu"),
    *("--pretrain-epochs", "0", "--seeds", "1", "--unseen", "sketch"),
)

# Each command line of one method; N stands for the number of iterations.
JOBS = {
    "crossdomain": (*_CROSS, "--methods", "lft-evograd", "--iterations", "N"),
    "crossdomain --workers 1": (
        *(*_CROSS, "--methods", "none", "--iterations", "N", "--workers", "1"),
    ),
    "fewshot": (
        *("fewshot", "--methods", "fomaml", "--seeds", "1", "--ways", "2"),
        *("--gradients", "N", "--meta-batch", "1", "--steps", "1", "--shots", "3"),
        *("--test-steps", "1", "--tasks", "2", "--validation-tasks", "1"),
        *("--hidden", "4", "--queries", "5", "--test-queries", "2", "--train-shots"),
        *("8", "--batch-size", "16", "--omniglot", "{data}", "--device", "cpu"),
    ),
    "noisy-labels": (*_NOISY, "--methods", "evograd", "--iterations", "N"),
    "rotation": (
        *("rotation", "--data", "{data}/mnist", "--iterations", "N", "--methods"),
        *("evograd", "--batch-size", "8", "--seeds", "1"),
    ),
    "schedules": (
        *("schedules", "--data", "{data}/mnist", "--methods", "fds", "--seeds", "1"),
        *("--fresh-seeds", "1", "--steps", "10", "--windows", "2", "--batch-size"),
        *("8", "--budget", "N0"),
    ),
    "search": (
        *("search", "rotation", "--set", "data={data}/mnist", "--set"),
        *("batch-size=8", "--fidelity", "10..10", "--methods", "random", "--budget"),
        *("N", "--fresh-seeds", "1"),
    ),
}


class Reading(NamedTuple):
    """What the processes of a job hold at one time.

    Attributes:
        memory: resident memory in bytes.
        files: number of open file descriptors.
    """

    memory: int
    files: int


def readings(words: Sequence[str], out: Path) -> list[Reading]:
    """Run a job to its end, and return what it held while it trained.

    Args:
        words: its command line.
        out: folder that it writes to.

    Raises:
        Fault: if the job fails.
    """
    session = Session([*words, "--out", str(out)])
    found = []
    while session.running():
        # Later the pictures are drawn, for which more modules are loaded.
        if (out / "settings.json").exists() and not (out / "results.json").exists():
            found.append(_reading(session))
        time.sleep(0.05)
    ended = session.end(60)
    if ended.code:
        raise Fault(f"{words}: {ended}")
    return found


def _reading(session: Session) -> Reading:
    memory = files = 0
    for process in session.processes():
        place = Path(f"/proc/{process.number}")
        with contextlib.suppress(OSError):  # it has just ended
            pages = int((place / "statm").read_text().split()[1])
            memory += pages * os.sysconf("SC_PAGE_SIZE")
            files += len(os.listdir(place / "fd"))
    return Reading(memory, files)


def flat(name: str, iterations: int, seed: int, folder: Path) -> str:
    """Run one of JOBS, and compare what it holds early and late.

    Args:
        name: name of the job.
        iterations: its length.
        seed: seed of the job.
        folder: empty folder.
    """
    words = [
        word.replace("{data}", str(data())).replace("N", str(iterations))
        for word in JOBS[name]
    ]
    found = readings([*words, "--seed", str(seed)], folder / "run")
    if len(found) < 16:
        raise Fault(f"{name}: only {len(found)} readings, too few to see a leak")
    quarter = len(found) // 4
    early, late = found[quarter : 2 * quarter], found[-quarter - 1 : -1]
    before, after = (sum(r.memory for r in part) / len(part) for part in (early, late))
    if after - before > max(PART * before, BYTES):
        raise Fault(f"{name}: memory grew from {before:.0f} to {after:.0f} bytes")
    files = [max(r.files for r in part) for part in (early, late)]
    if files[1] - files[0] > FILES:
        raise Fault(f"{name}: open files grew from {files[0]} to {files[1]}")
    return SAME


def _kinds() -> dict[str, Callable[[int, Path], str]]:
    return {
        f"{ITERATIONS} iterations of {name}": partial(flat, name, ITERATIONS)
        for name in JOBS
    }


KINDS: Family = _kinds()
