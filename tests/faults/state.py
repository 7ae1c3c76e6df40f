"""Damaged, exchanged, foreign and missing files of a run that is then resumed."""

import functools
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from damage import WAYS, special_file
from faulty import REFUSED, SAME, Family, Fault, check_refused, ended
from same_numbers import difference, outcome_of
from whole_runs import RUNS, data

# Each writes something else into its folder: checkpoints and logs, two checkpoints for
# each method, shared ones, results alone, or a record of a search.
COMMANDS = ("noisy-labels", "crossdomain", "fewshot", "rotation", "schedules", "search")

_OTHER = {
    "noisy-labels": ("--lr", "0.031"),
    "crossdomain": ("--lr", "0.0011"),
    "fewshot": ("--meta-lr", "0.0011"),
    "rotation": ("--lr", "0.0011"),
    "schedules": ("--batch-size", "9"),
    "search": ("--eta", "2"),
}


class Made(NamedTuple):
    """Folders of a run.

    Attributes:
        whole: a run that has ended.
        half: the same run as if it had been killed.
        other: a run with another setting.
        outcome: what comes out of the run.
        other_outcome: what comes out of the other run.
    """

    whole: Path
    half: Path
    other: Path
    outcome: dict[str, object]
    other_outcome: dict[str, object]


@functools.cache
def made(command: str) -> Made:
    """Return the folders of a command, which are made once."""
    root = Path(_folder().name) / command
    folders = [root / name for name in ("whole", "half", "other")]
    for folder, more in ((folders[0], ()), (folders[2], _OTHER[command])):
        line = [*_line(command), "--out", str(folder), *more]
        if (result := ended(line, 300)).code:
            raise Fault(f"{line}: {result}")
    shutil.copytree(folders[0], folders[1])
    _kill(folders[1])
    return Made(*folders, outcome_of(folders[0]), outcome_of(folders[2]))


@functools.cache
def _folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="state-")


def _line(command: str) -> list[str]:
    return [word.replace("{data}", str(data())) for word in RUNS[command].line]


def _kill(run: Path) -> None:
    """Leave what a process leaves that is killed in its last method."""
    (run / "results.json").unlink()
    checkpoints = sorted(run.glob("checkpoints/*.previous.ckpt"), key=os.path.getmtime)
    if checkpoints:
        checkpoints[-1].rename(str(checkpoints[-1]).replace(".previous", ""))
    for record in run.rglob("evaluations.jsonl"):
        lines = record.read_bytes().splitlines(keepends=True)
        record.write_bytes(b"".join(lines[: len(lines) // 2]))


def _state(run: Path) -> list[Path]:
    """Return the files that a resumed run reads."""
    found = [*run.glob("*.json"), *run.glob("checkpoints/*"), *run.rglob("*.jsonl")]
    return sorted(path for path in found if path.name != "best.json")


def _resumed(command: str, run: Path) -> str:
    """Resume a run, and return what came of it.

    Raises:
        Fault: for other numbers than those of the run without a fault.
    """
    result = ended([command, "--resume", "--out", str(run)], 300)
    if result.code:
        return check_refused(result)
    outcome = outcome_of(run)
    found = difference(made(command).outcome, outcome)
    # If all that counts is from the other run, then it is the other run.
    if found and difference(made(command).other_outcome, outcome):
        raise Fault(f"{command}: other numbers in {found}")
    return SAME


Doing = Callable[[random.Random, Made, Path], None]


def _kind(do: Doing) -> Callable[[int, Path], str]:
    def kind(seed: int, folder: Path) -> str:
        chance = random.Random(seed)
        command = COMMANDS[seed % len(COMMANDS)]
        there = made(command)
        run = folder / "run"
        shutil.copytree(chance.choice((there.whole, there.half)), run)
        do(chance, there, run)
        outcome = _resumed(command, run)
        if outcome == REFUSED:  # as most messages advise
            line = [*_line(command), "--out", str(run), "--overwrite"]
            result = ended(line, 300)
            if result.code == 0 and difference(there.outcome, outcome_of(run)):
                raise Fault(f"{line}: other numbers after --overwrite")
        return outcome

    return kind


def damage_one(chance: random.Random, _: Made, run: Path) -> None:
    path = chance.choice(_state(run))
    path.write_bytes(chance.choice(list(WAYS.values()))(chance, path.read_bytes()))


def damage_both(chance: random.Random, _: Made, run: Path) -> None:
    path = chance.choice([p for p in _state(run) if ".previous" not in p.name])
    way = chance.choice(list(WAYS.values()))
    for each in (path, path.with_name(f"{path.stem}.previous{path.suffix}")):
        if each.exists():
            each.write_bytes(way(chance, each.read_bytes()))


def empty(chance: random.Random, _: Made, run: Path) -> None:
    chance.choice(_state(run)).write_bytes(b"")


def edit(chance: random.Random, _: Made, run: Path) -> None:
    """Change one number of a JSON file by hand, in both generations or in one."""
    path = chance.choice([p for p in _state(run) if p.suffix in (".json", ".jsonl")])
    lines = path.read_text().splitlines()
    digits = [n for n, line in enumerate(lines) if any(c.isdigit() for c in line)]
    number = chance.choice(digits)
    places = [n for n, c in enumerate(lines[number]) if c.isdigit()]
    place = chance.choice(places)
    digit = str((int(lines[number][place]) + chance.randint(1, 9)) % 10)
    lines[number] = lines[number][:place] + digit + lines[number][place + 1 :]
    path.write_text("\n".join(lines) + "\n")


def retype(chance: random.Random, _: Made, run: Path) -> None:
    """Change the value of a JSON file to one of another type."""
    path = chance.choice([p for p in _state(run) if p.suffix == ".json"])
    content = json.loads(path.read_text())
    name = chance.choice(list(content))
    content[name] = chance.choice((None, [], {}, "", float("nan"), -1, True, "x" * 99))
    path.write_text(json.dumps(content))


def foreign(chance: random.Random, there: Made, run: Path) -> None:
    """Put some files of a run with another setting in the place of one's own."""
    files = [path.relative_to(there.other) for path in _state(there.other)]
    for name in chance.sample(files, chance.randint(1, min(3, len(files)))):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(there.other / name, run / name)


def exchange(chance: random.Random, _: Made, run: Path) -> None:
    """Two files of the same kind change places."""
    files = _state(run)
    one = chance.choice(files)
    other = chance.choice([path for path in files if path.suffix == one.suffix])
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def remove(chance: random.Random, _: Made, run: Path) -> None:
    files = _state(run)
    for path in chance.sample(files, chance.randint(1, len(files))):
        path.unlink()


def replace(chance: random.Random, _: Made, run: Path) -> None:
    """Something that is no file has the name of one."""
    path = chance.choice(_state(run))
    path.unlink()
    special_file(chance, path)


def put_in_the_way(chance: random.Random, _: Made, run: Path) -> None:
    """A folder of the run is a file, or the other way round."""
    names = ["checkpoints", "logs", "accuracy.png", "results.json", "settings.json"]
    path = run / chance.choice(names)
    if path.is_dir():
        shutil.rmtree(path)
        path.write_text("")
    else:
        path.unlink(missing_ok=True)
        path.mkdir()
        (path / "file").write_text("mine")


KINDS: Family = {
    "one file of a run is damaged": _kind(damage_one),
    "both generations of a file are damaged": _kind(damage_both),
    "a file of a run is empty": _kind(empty),
    "a number in a JSON file is edited": _kind(edit),
    "a value in a JSON file has another type": _kind(retype),
    "files of a run with another setting": _kind(foreign),
    "two files of a run are exchanged": _kind(exchange),
    "some files of a run are missing": _kind(remove),
    "a pipe, device, folder or loop in the place of a file": _kind(replace),
    "a file in the place of a folder, or a folder of a file": _kind(put_in_the_way),
}
