"""The files about the project agree with each other and with the code."""

import re
from pathlib import Path

import pytest
import yaml

import l2l_evograd

ROOT = Path(__file__).parent.parent
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
VERSION = l2l_evograd.__version__


def read(name: str) -> dict:
    found = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_the_version_comes_from_one_place():
    assert 'dynamic = ["version"]' in PROJECT
    assert not re.search(r"^version = ", PROJECT, flags=re.MULTILINE)


def test_the_changelog_and_the_citation_name_the_present_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = re.search(r"^## \[([\d.]+)\] - (\S+)$", changelog, flags=re.MULTILINE)
    assert heading is not None
    citation = read("CITATION.cff")
    assert heading[1] == citation["version"] == VERSION
    assert heading[2] == citation["date-released"]


def test_workflows_call_steps_that_exist():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    steps = set(re.findall(r"^(\w+)\(\) \{$", script, flags=re.MULTILINE))
    workflow = read(".github/workflows/ci.yml")
    called: set[str] = set()
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            if "run" in step:
                command, *names = step["run"].split()
                assert command == ".ci/run"
                called.update(names)
    assert called == steps
    default = re.search(r"^    set -- (.+)$", script, flags=re.MULTILINE)
    assert default is not None
    assert set(default[1].split()) <= steps


def test_every_python_of_the_project_is_named_and_the_ends_are_tried():
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PROJECT)
    assert named == ["3.10", "3.11", "3.12", "3.13", "3.14"]
    assert re.search(r'^requires-python = ">=3\.10"', PROJECT, flags=re.MULTILINE)
    jobs = read(".github/workflows/ci.yml")["jobs"]
    tests = jobs["tests"]["strategy"]["matrix"]["python"]
    wheels = jobs["wheel"]["strategy"]["matrix"]["python"]
    assert tests[0] == wheels[0] == "3.10"
    assert wheels[-1] == "3.14"


@pytest.mark.parametrize("page", ["README.md", "docs/installing.md"])
def test_extras_that_pages_name_are_those_of_the_project(page):
    section = PROJECT.split("[project.optional-dependencies]")[1].split("\n[project")[0]
    extras = set(re.findall(r"^(\w+) = \[", section, flags=re.MULTILINE))
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"[\"'](?:\.|l2l-evograd)\[([\w,]+)\]", text)
    assert named
    for choice in named:
        assert set(choice.split(",")) <= extras


def test_each_bound_says_why():
    for name in ("dependencies", "project.optional-dependencies"):
        marker = f"\n[{name}]" if "." in name else f"\n{name} = ["
        section = PROJECT.split(marker)[1].split("\n[")[0]
        before = ""
        for line in section.splitlines():
            if line.startswith('    "') and "l2l-evograd[" not in line:
                assert "#" in line or before.lstrip().startswith("#"), line
            before = line
