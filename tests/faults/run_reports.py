"""Runs of crossdomain that are damaged, foreign or odd, combined in a report.

Nothing may be written unless the report is right: then it says what it says of the
whole run.
"""

import json
import random
from pathlib import Path
from typing import Any

from damage import WAYS, special_file
from faulty import HARMLESS, REFUSED, SAME, Ended, Family, Fault, check_refused, ended
from reports import ONE
from written import written_run

from l2l_evograd.experiments.sealed import previous, read_sealed, write_sealed

_FILES = ("settings.json", "results.json")

_ODD: tuple[Any, ...] = (
    *(None, True, -1, 0.5, 10**30, 10**400, 1e308, "", "a", "\ud800", "x" * 10**5, []),
    *({}, [None], [[]], ["a"], [1e308, 1e308, 1e308], {"mean": 1e308}, {"seen": 3}),
    *([-1, 2, 3], [0.1], "../../x", [{}], {"mean": "a"}),
)


def damaged(seed: int, folder: Path) -> str:
    """Damage the bytes of one file, or of both generations of it."""
    chance = random.Random(f"report {seed}")
    run = written_run(folder / "run", ONE)
    path = run / chance.choice(_FILES)
    way = chance.choice(list(WAYS.values()))
    path.write_bytes(way(chance, path.read_bytes()))
    if chance.random() < 0.5 and previous(path).exists():
        older = previous(path)
        older.write_bytes(way(chance, older.read_bytes()))
    return _reported(run, folder)


def odd(seed: int, folder: Path) -> str:
    """Change an entry of a file, with a digest that agrees with it."""
    chance = random.Random(f"odd report {seed}")
    run = written_run(folder / "run", ONE)
    path = run / chance.choice(_FILES)
    content = read_sealed(path)
    place: Any = content
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = chance.choice(list(keys))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or chance.random() < 0.3:
            break
        place = inner
    if chance.random() < 0.2:
        del place[key]
    else:
        place[key] = chance.choice(_ODD)
    # As a program would write it that does not check what it writes.
    seal = json.loads(json.dumps(content))
    write_sealed(path, seal)
    previous(path).unlink(missing_ok=True)
    return _written_or_refused(run, folder)


def foreign(seed: int, folder: Path) -> str:
    """Exchange files for those of another run or command, or for no files."""
    chance = random.Random(f"foreign report {seed}")
    run = written_run(folder / "run", ONE)
    other = written_run(folder / "other", ONE, ways=7)
    name = chance.choice(_FILES)
    if chance.random() < 0.5:
        (run / name).write_bytes((other / name).read_bytes())
        previous(run / name).unlink(missing_ok=True)
    else:
        previous(run / name).unlink(missing_ok=True)
        special_file(chance, run / name)
    result = _report([run], folder)
    return _nothing_written(result, folder)


def places(seed: int, folder: Path) -> str:
    """Name the same run twice, no run, or a folder that is none."""
    chance = random.Random(f"places {seed}")
    run = written_run(folder / "run", ONE)
    copy = written_run(folder / "copy", ONE)
    (folder / "empty").mkdir()
    (folder / "file").write_text("{}")
    wrong: tuple[list[Any], ...] = (
        [],
        [run, copy],
        [folder / "empty"],
        [folder / "file"],
        [run, folder / "missing"],
        [""],
        ["a\0b"],
        ["x" * 300],
        ["~nobody9/x"],
        ["/dev/null"],
        [run / "settings.json"],
        ["\udcff"],
        ["a/" * 3000],
        [run, ""],
    )
    return _nothing_written(_report(chance.choice(wrong), folder), folder)


def _report(runs: list[Any], folder: Path) -> Ended:
    return ended(["report", *map(str, runs), "--to", str(folder / "report")])


def _nothing_written(result: Ended, folder: Path) -> str:
    if (folder / "report").exists():
        raise Fault(f"something was written: {result}")
    return check_refused(result)


def _written_or_refused(run: Path, folder: Path) -> str:
    result = _report([run], folder)
    if result.code:
        return _nothing_written(result, folder)
    if {p.name for p in (folder / "report").iterdir()} != {"report.md", "domains.png"}:
        raise Fault(f"the report is not whole: {result}")
    text = (folder / "report" / "report.md").read_text(encoding="utf-8")
    if "nan" in text.lower().split() or "inf" in text.lower().split():
        raise Fault(f"the report has numbers that are none: {text[:300]}")
    return HARMLESS


def _reported(run: Path, folder: Path) -> str:
    said = _written_or_refused(run, folder)
    if said == REFUSED:
        return said
    whole = written_run(folder / "whole" / "run", ONE)
    ended(["report", str(whole), "--to", str(folder / "whole" / "report")])
    texts = [
        (place / "report" / "report.md").read_text(encoding="utf-8").splitlines()
        for place in (folder, folder / "whole")
    ]
    tables = [[line for line in text if line.startswith("|")] for text in texts]
    if tables[0] != tables[1]:
        raise Fault(f"another report: {tables}")
    return SAME


KINDS: Family = {
    "damaged bytes in a run that is reported": damaged,
    "an odd entry in a run that is reported": odd,
    "files of another run, or no files, in a report": foreign,
    "runs named twice or not at all in a report": places,
}
