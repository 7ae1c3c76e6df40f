"""The page on architecture, and its picture, show the imports that the code has."""

import importlib.util
import re
import sys

from pages import ROOT

_SCRIPT = ROOT / "docs/pictures/staircase.py"
_SPEC = importlib.util.spec_from_file_location("staircase", _SCRIPT)
assert _SPEC is not None and _SPEC.loader is not None
staircase = importlib.util.module_from_spec(_SPEC)
sys.modules["staircase"] = staircase
_SPEC.loader.exec_module(staircase)

PAGE = (ROOT / "docs/develop/architecture.md").read_text(encoding="utf-8")


def test_there_is_no_circle_of_imports():
    assert min(staircase.floors().values()) == 1  # a circle raises a RecursionError


def test_the_page_has_the_floors():
    rows = re.findall(r"^\| `([\w.]+)/?` \| (\d+) \|", PAGE, re.M)
    shown = {name.removesuffix(".py"): int(floor) for name, floor in rows}
    floors = staircase.floors()
    folders = {n for n in floors if staircase.is_folder(n) or n == "cli"}
    assert shown == {name: floors[name] for name in folders}


def test_the_page_names_the_single_files():
    files = {n for n in staircase.names() if not staircase.is_folder(n)}
    assert [n for n in files if f"`{n}.py`" not in PAGE] == []


def test_the_picture_is_what_its_script_draws():
    made = staircase.picture()
    assert staircase.PICTURE.read_text(encoding="utf-8") == made, (
        "run python docs/pictures/staircase.py"
    )


def test_files_and_functions_on_the_page_exist():
    package = ROOT / "l2l_evograd"
    paths = set(re.findall(r"`((?:\w+/)+\w+\.py)`", PAGE))
    for path in paths:
        assert (package / path).exists() or (ROOT / path).exists(), path
    code = "\n".join(f.read_text(encoding="utf-8") for f in package.rglob("*.py"))
    for name in re.findall(r"`(?:[A-Z]\w+\.)?(_?[A-Za-z]\w+)`", PAGE):
        assert re.search(rf"\b{name}\b", code), name
