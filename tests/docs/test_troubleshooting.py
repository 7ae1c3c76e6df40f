"""The page about error messages quotes messages that exist, and all of the core's."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import ROOT

PACKAGE = ROOT / "l2l_evograd"
PAGE = ROOT / "docs" / "understanding" / "troubleshooting.md"

# Stands for names and numbers, on the page and where a message has a placeholder.
GAP = "…"

# Letters besides gaps that a quoted message must have, so that it says something.
LEAST = 12

# The messages of these are on the page, all of them.
CORE = (
    "algorithms",
    "bilevel",
    "checks.py",
    "distributed.py",
    "estimators",
    "finite.py",
    "hyperparameters.py",
    "layers.py",
    "lightning",
    "oracle",
    "replay",
    "search",
    "undo.py",
    "unroll",
    "updates",
    "warp_layers.py",
)

# Calls besides errors whose arguments are messages.
SAYING = ("__init__", "say", "warn")


def text_of(node: ast.AST) -> str:
    """Return a text as the source has it, with gaps for what is put in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return gaps("".join(map(text_of, node.values)))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return gaps(text_of(node.left) + text_of(node.right))
    return GAP


def gaps(text: str) -> str:
    """Let several gaps side by side be one."""
    return re.sub(f"{GAP}+", GAP, text)


@functools.cache
def texts() -> tuple[str, ...]:
    """Return all texts of the package."""
    found: dict[str, None] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
                found[" ".join(text_of(node).split())] = None
    return tuple(found)


def messages(path: Path) -> Iterator[str]:
    """Yield the messages of the errors and warnings that a file makes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        call = node.exc if isinstance(node, ast.Raise) else node
        if not isinstance(call, ast.Call):
            continue
        name = ast.unparse(call.func).rpartition(".")[2]
        error = name.endswith("Error") or (call is not node and name[:1].isupper())
        if error or name in SAYING:
            for argument in call.args:
                text = " ".join(text_of(argument).split())
                if len(text.replace(GAP, "")) >= LEAST and " " in text:
                    yield text


def quoted() -> list[tuple[int, str]]:
    """Return the messages on the page, with the number of their lines.

    They are the code in the first cells of the rows of tables.
    """
    found = []
    for number, line in enumerate(PAGE.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("| `"):
            cell = line.split(" | ")[0]
            found += [(number, text) for text in re.findall(r"`([^`]+)`", cell)]
    return found


@pytest.mark.parametrize(("line", "message"), quoted())
def test_a_quoted_message_is_in_the_source(line, message):
    assert len(message.replace(GAP, "")) >= LEAST
    assert any(message in text for text in texts()), message


def test_a_message_is_quoted_once():
    found = [message for _, message in quoted()]
    assert len(found) >= 250
    assert len(found) == len(set(found))


@pytest.mark.parametrize("place", CORE)
def test_every_message_of_the_core_is_on_the_page(place):
    path = PACKAGE / place
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    said = [message for file in files for message in messages(file)]
    assert said
    known = [message for _, message in quoted()]
    lacking = [m for m in said if not any(k in m for k in known)]
    assert lacking == []
