"""The package as it is handed out: what is in it, and that it works by itself."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import l2l_evograd

ROOT = Path(__file__).parent.parent
VERSION = l2l_evograd.__version__


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder with the wheel and the sdist, built without network."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", out],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return out


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    (found,) = built.glob("*.whl")
    return found


def test_the_wheel_has_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"l2l_evograd-{VERSION}.dist-info/METADATA").decode()
    own = {name for name in names if not name.startswith("l2l_evograd-")}
    here = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "l2l_evograd").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert own == here
    assert "l2l_evograd/py.typed" in own
    assert f"l2l_evograd-{VERSION}.dist-info/licenses/LICENSE" in names
    for line in (f"Version: {VERSION}", "License-Expression: MIT", "Project-URL: "):
        assert re.search(f"^{re.escape(line)}", metadata, flags=re.MULTILINE)


def test_the_core_needs_torch_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = f"l2l_evograd-{VERSION}.dist-info/METADATA"
        lines = archive.read(name).decode().partition("\n\n")[0].splitlines()
    needed = [
        Requirement(line.removeprefix("Requires-Dist: "))
        for line in lines
        if line.startswith("Requires-Dist: ")
    ]
    # Without an extra, whatever the Python.
    core = {each.name for each in needed if "extra" not in str(each.marker)}
    assert core == {"torch"}


def test_a_wheel_can_be_built_from_the_sdist(built, wheel, tmp_path):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    assert not (folder / "benchmarks").exists()  # results and pictures are large
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    (again,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(again) as one, zipfile.ZipFile(wheel) as other:
        assert set(one.namelist()) == set(other.namelist())


def test_the_core_works_in_an_environment_that_has_torch_alone(wheel, tmp_path):
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=True, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # Torch and what it needs are linked to; to download them would take minutes.
    for entry in _files_of("torch"):
        link = site / entry.name
        if not link.exists():
            link.symlink_to(entry)
    python = folder / "bin" / "python"
    env = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True, env=env)
    done = subprocess.run(
        [str(python), str(ROOT / "tests" / "support" / "core_alone.py")],
        cwd=tmp_path,
        env=env,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"l2l_evograd {VERSION}" in done.stdout


def _files_of(name: str) -> Iterator[Path]:
    """Yield what a distribution and all that it needs have put into site-packages."""
    seen: set[str] = set()
    todo = [name]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system or Python
        site = Path(str(found.locate_file("")))
        tops = {file.parts[0] for file in found.files or () if file.parts[0] != ".."}
        yield from (site / top for top in sorted(tops) if (site / top).exists())
        for text in found.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo.append(requirement.name)
