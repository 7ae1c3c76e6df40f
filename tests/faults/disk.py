"""Full and read-only disks, folders that are in use, and files that are in the way.

A full disk is a small file system in memory, which takes the rights of root to mount;
without them, files have a limit of size instead.
"""

import contextlib
import functools
import os
import random
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from faulty import REFUSED, SAME, Family, Fault, check_refused, ended
from same_numbers import difference, outcome_of
from whole_runs import RUNS, data

from l2l_evograd.experiments.sealed import exists
from l2l_evograd.lock import locked

COMMANDS = (
    *("noisy-labels", "crossdomain", "fewshot", "rotation", "schedules", "search"),
    *("illustrate", "report", "prepare, folder"),
)


@functools.cache
def expected(command: str) -> dict[str, object]:
    """Return what comes out of a command without a fault."""
    out = data() / f"disk-{command}"
    result = ended([*_line(command), str(out)], 300)
    if result.code:
        raise Fault(f"{command}: {result}")
    return outcome_of(out)


def _line(command: str, *more: str) -> list[str]:
    """Return the command line up to the folder it writes to."""
    if command == "report" and not (data() / "crossdomain").exists():
        made = [*_line("crossdomain"), str(data() / "crossdomain")]
        if (result := ended(made, 300)).code:
            raise Fault(f"{made}: {result}")
    words = [word.replace("{data}", str(data())) for word in RUNS[command].line]
    return [*words, *more, RUNS[command].out]


def _again(command: str, out: Path) -> list[str]:
    """Return the command line that goes on from what is left."""
    begun = exists(out / "settings.json")
    if begun and RUNS[command].resumes:
        return [command, "--resume", RUNS[command].out, str(out)]
    more = ["--overwrite"] if begun else []
    return [*_line(command, *more), str(out)]


def _goes_on(command: str, out: Path) -> None:
    """Run a command to its end, as if nothing had happened.

    Raises:
        Fault: if it does not end, or ends with other numbers.
    """
    result = ended(_again(command, out), 300)
    if result.code:
        raise Fault(f"{command} could not go on: {result}")
    if found := difference(expected(command), outcome_of(out)):
        raise Fault(f"{command}: other numbers in {found}")


def _unmounted(*arguments: str) -> None:
    subprocess.run(["umount", *arguments], check=False, capture_output=True)


def _mount(place: Path, options: str) -> bool:
    line = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    return subprocess.run(line, check=False, capture_output=True).returncode == 0


@contextlib.contextmanager
def _limited(size: int) -> Iterator[None]:
    """Limit the size of every file that this process writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def full(command: str, chance: random.Random, folder: Path) -> str:
    # Of any size: most of what is written is small, but checkpoints and logs are not.
    size = int(10 ** chance.uniform(3.6, 6.2))
    disk = folder / "disk"
    disk.mkdir()
    expected(command)
    if not _mount(disk, f"size={size}"):
        with _limited(size):
            result = ended([*_line(command), str(disk / "run")], 300)
        return _judged(command, result, disk / "run")
    try:
        result = ended([*_line(command), str(disk / "run")], 300)
        subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
        return _judged(command, result, disk / "run")
    finally:
        _unmounted("-l", str(disk))


def _judged(command: str, result: object, run: Path) -> str:
    if result.code == 0:
        if found := difference(expected(command), outcome_of(run)):
            raise Fault(f"{command}: other numbers in {found}")
        return SAME
    check_refused(result)
    _goes_on(command, run)
    return REFUSED


def read_only(command: str, chance: random.Random, folder: Path) -> str:
    disk = folder / "disk"
    disk.mkdir()
    mounted = _mount(disk, "ro,size=1m")
    try:
        place = disk if mounted else Path("/proc")
        return check_refused(ended([*_line(command), str(place / "run")], 300))
    finally:
        _unmounted("-l", str(disk))


def in_use(command: str, chance: random.Random, folder: Path) -> str:
    run = folder / "run"
    place = run / "cub" if command.startswith("prepare") else run
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException), locked(place):
            (folder / "ready").touch()
            _wait_for(folder / "done")
        os._exit(0)
    try:
        _wait_for(folder / "ready")
        outcome = check_refused(ended([*_line(command), str(run)], 300), "another run")
    finally:
        (folder / "done").touch()
        os.waitpid(child, 0)
    _goes_on(command, run)
    return outcome


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def _kind(
    do: Callable[[str, random.Random, Path], str],
) -> Callable[[int, Path], str]:
    def kind(seed: int, folder: Path) -> str:
        return do(COMMANDS[seed % len(COMMANDS)], random.Random(seed), folder)

    return kind


KINDS: Family = {
    "the disk is full, at any write": _kind(full),
    "the disk is read-only": _kind(read_only),
    "another run is writing to the folder": _kind(in_use),
}
