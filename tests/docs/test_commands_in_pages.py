"""Every command line, option, module and file that the pages name is a real one."""

import argparse
import functools
import importlib
import importlib.util
import io
import pkgutil
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pages import PAGES, ROOT, blocks
from rich.console import Console

from l2l_evograd.cli import COMMANDS, make_app

# Libraries that not every Python has: a line that needs one is left out there.
OPTIONAL = ("betty", "dehb", "higher", "learn2learn", "optuna", "torchopt")

# Options of other programs that the pages name: pip, uv, pytest, torchrun, docker.
OF_OTHERS = {
    "--all-extras",
    "--config-settings",
    "--cov",
    "--extra",
    "--global-option",
    "--group",
    "--index-url",
    "--no-build-isolation",
    "--no-deps",
    "--nnodes",
    "--nproc-per-node",
    "--shm-size",
    "--use-pep517",
}

# The options of a page of a command are those of the commands that it is about.
ABOUT = {
    "benchmark-data": ("prepare", "report", "crossdomain"),
    "rerun": ("rerun", "fewshot"),
    "search": ("search", "rotation"),
    "small-problems": ("rotation", "illustrate"),
}


class Line(NamedTuple):
    """A command line in a page."""

    page: str
    line: int
    words: list[str]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {shlex.join(self.words[:3])}"


def command_lines() -> list[Line]:
    """Return the commands of all blocks of bash, without what comes before them."""
    found = []
    for block in blocks("bash"):
        joined = re.sub(r"\\\n\s*", "", block.code)
        for number, text in enumerate(joined.splitlines()):
            for part in re.split(r"\s&&\s|\s\|\s|;\s", text):
                words = shlex.split(part, comments=True)
                while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
                    words = words[1:]  # a variable of the environment
                if words[:2] == ["uv", "run"]:
                    words = words[2:]
                if words:
                    found.append(Line(block.page, block.line + number, words))
    return found


LINES = command_lines()


def of_commands() -> list[Line]:
    return [line for line in LINES if line.words[0] == "l2l-evograd"]


def of_modules() -> list[Line]:
    # Tests of arguments would run an example, so only benchmarks are asked to parse.
    return [line for line in LINES if line.words[:2] == ["python", "-m"]]


@pytest.mark.parametrize("line", of_commands(), ids=str)
def test_a_line_parses(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokens = line.words[1:]
    app = make_app(tokens[0])
    # What is left over would be an error when the command runs.
    command, bound, *_ = app.parse_args(tokens)
    assert callable(command)
    bound.apply_defaults()


def test_lines_with_wrong_options_do_not_parse():
    from cyclopts import CycloptsError

    for wrong in (["rotation", "--iteration", "3"], ["prepre", "cub"], ["rerun"]):
        with pytest.raises(CycloptsError):
            make_app(wrong[0]).parse_args(wrong)


class Parsed(Exception):
    """The arguments of a benchmark are right."""


@pytest.mark.parametrize("line", of_modules(), ids=str)
def test_a_module_takes_its_options(line, monkeypatch):
    name, *options = line.words[2:]
    if name.partition(".")[0] not in ("benchmarks", "examples"):
        pytest.skip("a module of another project")
    assert importlib.util.find_spec(name) is not None
    if name.startswith("examples"):
        assert not options
        return
    parse = argparse.ArgumentParser.parse_args

    def parse_only(parser: Any, arguments: Any = None, namespace: Any = None) -> None:
        parse(parser, arguments, namespace)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in OPTIONAL:
            raise
        pytest.skip(f"{error.name} is not installed")
    with pytest.raises(Parsed):
        module.main(options)


def test_scripts_in_lines_exist():
    named = {word for line in LINES for word in line.words if word.endswith(".py")}
    missing = {name for name in named if not (ROOT / name).is_file()}
    assert not {name for name in missing if "NAME" not in name}


def test_there_are_lines_of_every_command_and_of_the_benchmarks():
    named = {line.words[1] for line in of_commands()}
    assert named - {"--help", "--version"} >= set(COMMANDS)
    modules = {line.words[2] for line in of_modules()}
    assert modules >= {
        f"benchmarks.{name}"
        for name in ("accuracy", "cost", "fidelity", "gpu", "overhead")
    }


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z](?:[a-z0-9-]*[a-z0-9])?", text))


@functools.cache
def options_of(command: str) -> frozenset[str]:
    """Return the options that the help of a command lists."""
    text = io.StringIO()
    make_app(command).help_print([command], console=Console(file=text, width=160))
    listed = re.findall(
        r"^│ +(?:\* +)?(?:[A-Z]+ +)?(--[a-z-]+)", text.getvalue(), re.MULTILINE
    )
    assert len(listed) >= 3
    return frozenset(listed) | {"--help", "--version"}


@functools.cache
def options_of_scripts() -> set[str]:
    """Return the options of benchmarks, examples and scripts of the tests."""
    texts = [
        path.read_text(encoding="utf-8")
        for folder in ("benchmarks", "examples", "tests/faults")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]
    added = re.compile(r'add_argument\(\s*((?:"-[\w-]+",?\s*)+)')
    found = [match for text in texts for match in added.findall(text)]
    return options_in("\n".join(found))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_options_that_a_page_names_exist(page):
    without = {name for name in make_app() if name.startswith("--")}  # a command
    commands = set().union(*map(options_of, COMMANDS))
    known = without | commands | options_of_scripts() | OF_OTHERS
    assert options_in(page.read_text(encoding="utf-8")) <= known


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if p.parent.name == "commands" and p.stem not in ("index",)],
    ids=lambda path: path.stem,
)
def test_options_on_the_page_of_a_command_are_its_own(page):
    text = page.read_text(encoding="utf-8")
    commands = ABOUT.get(page.stem, (page.stem,))
    named = options_in(text)
    assert len(named) >= 4
    assert named <= set().union(*map(options_of, commands))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_on_a_page(command):
    about = [stem for stem, commands in ABOUT.items() if command in commands]
    pages = [ROOT / "docs" / "commands" / f"{s}.md" for s in ("index", command, *about)]
    texts = [page.read_text(encoding="utf-8") for page in pages if page.exists()]
    lacking = options_of(command) - options_in("\n".join(texts))
    # An argument has a name as an option as well.
    assert lacking <= {"--experiment", "--result", "--help", "--version"}


def test_modules_that_the_pages_name_exist():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"`(l2l_evograd(?:\.\w+)+)", text))
    assert len(named) >= 3
    for name in named:
        assert pkgutil.resolve_name(name) is not None


def test_files_that_the_pages_name_exist():
    folders = "benchmarks|docs|examples|l2l_evograd|tests"
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(rf"`(?:[^`\n]*\s)?((?:{folders})/[\w./*-]+)[^`\n]*`", text))
    assert len(named) >= 10
    for name in named:
        if "NAME" not in name:  # a placeholder
            assert any(ROOT.glob(name.rstrip("/"))), name
    scripts = set(re.findall(r"`(\w+\.py)`", text))
    known = {path.name for path in Path(ROOT).glob("*/**/*.py")}
    assert scripts <= known
