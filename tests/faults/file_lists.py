"""File lists that are damaged, odd, or too large."""

import json
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from damage import WAYS, outcome, special_file
from faulty import HARMLESS, REFUSED, SAME, Family, Fault, check_refused, ended
from photographs import make_domain

from l2l_evograd.experiments.crossdomain.data.domains import read_domains

_CLASSES, _IMAGES, _LABELS = "label_names", "image_names", "image_labels"


def damaged(way: Callable[..., bytes], seed: int, folder: Path) -> str:
    """Read a domain with a list that is damaged in one of WAYS, and all its images."""
    chance = random.Random(f"list {way.__name__} {seed}")
    path = _list(chance, folder)
    whole = _images(folder)
    path.write_bytes(way(chance, path.read_bytes()))
    return _compared(folder, whole)


def odd_entry(seed: int, folder: Path) -> str:
    """Read a domain with a list that has an entry of another type, or is another."""
    chance = random.Random(seed)
    path = _list(chance, folder)
    whole = _images(folder)
    content = json.loads(path.read_text())
    odd: Any = chance.choice(
        (None, True, -1, 0.5, 10**30, "", "a", [], {}, [[]], {"a": 1}, ["a"], 1e308)
    )
    key = chance.choice((_CLASSES, _IMAGES, _LABELS))
    if chance.random() < 0.3:
        content[key] = odd
    elif chance.random() < 0.2:
        del content[key]
    else:
        content[key][chance.randrange(len(content[key]))] = odd
    path.write_text(json.dumps(chance.choice((content, content, content, odd))))
    return _compared(folder, whole)


def odd_name(seed: int, folder: Path) -> str:
    """Read a list with a name that no file can have, or that leads elsewhere."""
    chance = random.Random(seed)
    path = _list(chance, folder)
    content = json.loads(path.read_text())
    name = chance.choice(
        (
            *("a\0b", "\ud800", "\udcff", "a\n\n\nb", "/", ".", "..", "~", "x" * 300),
            *("a/" * 3000, "/dev/zero", "/dev/stdin", "/proc/self/mem", "images"),
            *("\x1b[31m", "CON", "a\u202eb", "//a"),
        )
    )
    content[_IMAGES][0] = name
    path.write_text(json.dumps(content))
    if outcome(lambda: _images(folder), path) != REFUSED:
        raise Fault(f"the name {name!r} was read")
    return REFUSED


def odd_text(seed: int, folder: Path) -> str:
    """Read a list in a text that is hard to parse, or means different things."""
    chance = random.Random(seed)
    path = _list(chance, folder)
    content = json.loads(path.read_text())
    text = path.read_text()
    deep = chance.choice((10**3, 10**5, 10**6))
    first = json.dumps(content[_LABELS][0])
    name, texts = chance.choice(
        (
            ("deep lists", "[" * deep),
            ("deep lists, closed", "[" * deep + "]" * deep),
            ("deep objects", '{"a":' * deep),
            ("deep in a list", text.replace(f"[{first}", f"[{'[' * deep}{first}")),
            ("digits", text.replace(f"[{first}", f"[{'9' * 5000}")),
            ("a large power", text.replace(f"[{first}", "[1e400")),
            ("NaN", text.replace(f"[{first}", "[NaN")),
            ("no number", text.replace(f"[{first}", "[-Infinity")),
            ("UTF-16", text.encode("utf-16").decode("latin-1")),
            ("nothing", ""),
            ("two objects", text + text),
            ("a mark at the start", "\ufeff" + text),
            ("half a character", '{"a": "\\ud83d"}'),
        )
    )
    path.write_text(texts, encoding="utf-8")
    if outcome(lambda: _images(folder), path) != REFUSED:
        raise Fault(f"{name}: the list was read")
    return REFUSED


def too_large(seed: int, folder: Path) -> str:
    """Read a list that is too large, or has too many entries."""
    chance = random.Random(seed)
    path = _list(chance, folder)
    if chance.random() < 0.5:
        path.write_bytes(b"{")
        os.truncate(path, chance.choice((10**9, 2**40)))  # takes no space
    else:
        path.write_bytes(b'{"a": [' + b"[]," * 9_500_000 + b"[]]}")
    if outcome(lambda: _images(folder), path) != REFUSED:
        raise Fault("the list was read")
    return REFUSED


def special(seed: int, folder: Path) -> str:
    """Run a command where a list, or the folder itself, is no such thing."""
    chance = random.Random(seed)
    command = chance.choice(("fewshot", "crossdomain"))
    path = _list(chance, folder)
    data = folder if command == "crossdomain" else path.parent
    what = "odd folder"
    if chance.random() < 0.5:
        what = special_file(chance, path)
        names = path.name
    else:
        names = ""
        made = special_file(chance, folder / "odd")
        choices = (folder / "odd", "", "~nobody-here", "a\0b", "x" * 5000, "/dev/zero")
        data = chance.choice(choices) if made != "folder" else folder / "odd"
    result = ended([command, "--data", str(data), "--out", str(folder / "out")])
    try:
        return check_refused(result, names)
    except Fault as fault:
        raise Fault(f"{command} {str(data)[:80]!r}, {what}: {fault}") from fault


def _list(chance: random.Random, folder: Path) -> Path:
    """Make two domains, and return the path of one of their lists."""
    for name in ("birds", "cars"):
        if not (folder / name).exists():
            make_domain(folder, name, (16, 16))
    return folder / "birds" / f"{chance.choice(('base', 'val', 'novel'))}.json"


def _images(folder: Path) -> dict[str, Any]:
    """Return everything that a run takes from the domain birds."""
    splits = read_domains(folder, 16)["birds"].splits
    return {
        split: (part.labels, torch.stack([part[i][0] for i in range(len(part))]))
        for split, part in splits.items()
    }


def _compared(folder: Path, whole: dict[str, Any]) -> str:
    """Return SAME, or HARMLESS where valid JSON says that other images are meant."""
    found: dict[str, Any] = {}
    said = outcome(lambda: found.update(_images(folder)), folder / "birds")
    if said == REFUSED:
        return said
    for split, (labels, images) in whole.items():
        other, others = found[split]
        if labels != other or not torch.equal(images, others):
            return HARMLESS
    return SAME


KINDS: Family = {
    **{f"file list with {name}": partial(damaged, way) for name, way in WAYS.items()},
    "file list with an entry of another type": odd_entry,
    "file list with an impossible name": odd_name,
    "file list in a text that is hard to parse": odd_text,
    "file list that is too large": too_large,
    "pipe, device or link in place of a list or folder": special,
}
