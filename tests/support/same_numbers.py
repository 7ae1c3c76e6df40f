"""What has to come out the same of two runs: every number but seconds and memory."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

# Parts of the names of what may differ, and of what depends on it.
MAY_DIFFER = ("second", "memory", "digest")


def numbers_of(content: Any) -> Any:
    """Return the content of a JSON file without what may differ."""
    if isinstance(content, dict):
        return {
            name: numbers_of(value)
            for name, value in content.items()
            if not any(part in name for part in MAY_DIFFER)
        }
    return (
        [numbers_of(one) for one in content] if isinstance(content, list) else content
    )


def outcome_of(out: Path) -> dict[str, Any]:
    """Return what a command left: numbers of its results, or else its files' digests.

    Args:
        out: folder that the command wrote to.
    """
    results = sorted(out.rglob("results.json"))
    if results:
        return {
            path.relative_to(out).as_posix(): numbers_of(json.loads(path.read_text()))
            for path in results
        }
    return {
        path.relative_to(out).as_posix(): _digest(path)
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def _digest(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".md":  # links depend on where the file is
        content = re.sub(rb"\]\([^)]*\)", b"", content)
    return hashlib.sha256(content).hexdigest()


def difference(one: Any, other: Any, place: str = "") -> str:
    """Return where two outcomes first differ, and how; "" if they do not."""
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return f"{place}: {sorted(one.keys() ^ other.keys())} are in one only"
        pairs = [(f"{place}/{name}", one[name], other[name]) for name in one]
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return f"{place}: {len(one)} and {len(other)} entries"
        triples = zip(one, other, strict=True)
        pairs = [(f"{place}/{n}", a, b) for n, (a, b) in enumerate(triples)]
    else:
        return "" if one == other else f"{place}: {one!r} and {other!r}"
    return next((found for p, a, b in pairs if (found := difference(a, b, p))), "")
