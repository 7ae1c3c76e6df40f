"""The pages of the documentation, and the blocks of code in them."""

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/**/*.md")),
]

_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<kind>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```",
    flags=re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    """A fenced block of a page: where it stands, and what it says."""

    page: str
    line: int
    code: str


def blocks(kind: str) -> list[Block]:
    """Return all blocks of a kind, such as "python", in all pages."""
    found = []
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        for match in _BLOCK.finditer(text):
            if match["kind"] == kind:
                name = str(path.relative_to(ROOT))
                line = text.count("\n", 0, match.start()) + 2
                found.append(Block(name, line, textwrap.dedent(match["code"])))
    return found
