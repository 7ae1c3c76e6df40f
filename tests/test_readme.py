import pkgutil
import re
from pathlib import Path

import pytest
import torch

from l2l_evograd.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_code_in_the_readme_runs_by_itself(number):
    torch.manual_seed(0)
    names: dict[str, object] = {}
    exec(compile(BLOCKS[number], f"README.md, block {number + 1}", "exec"), names)
    # What a block is about comes out with something in it.
    for name in ("decay", "weights"):
        found = names.get(name)
        if isinstance(found, torch.Tensor) and found.grad is not None:
            assert found.grad.abs().min() > 0
    if "result" in names:
        assert names["result"].gradients.abs().min() > 0  # type: ignore[attr-defined]


def test_the_readme_shows_each_way_in():
    shown = "\n".join(BLOCKS)
    for name in (
        "EvoGradMetaOptimizer(",
        "hyperparameters=",
        "hypergradient(",
        "bilevel_step(",
        "compare(",
        "add_feature_transforms(",
        "WarpGrad(",
        "ARUBA(",
        "forward_mode(",
        "search(",
    ):
        assert name in shown


@pytest.mark.parametrize(
    ("heading", "commands", "least"),
    [
        ("The cross-domain command", ("crossdomain",), 25),
        ("Data and reports of the benchmark", ("prepare", "report", "crossdomain"), 4),
        ("The noisy-labels command", ("noisy-labels",), 8),
        ("The few-shot command", ("fewshot",), 7),
        ("The schedules command", ("schedules",), 6),
        ("The search command", ("search", "rotation"), 7),
        ("The paper's two small problems", ("rotation", "illustrate"), 3),
    ],
)
def test_options_in_the_readme_exist(heading, commands, least, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    for command in commands:
        assert main([command, "--help"]) == 0
    known = options_in(capsys.readouterr().out)
    section = README.split(f"## {heading}")[1].split("\n## ")[0]
    named = options_in(section) - {"--help"}
    assert len(named) >= least
    assert named <= known


def test_modules_named_in_the_readme_exist():
    named = set(re.findall(r"`(l2l_evograd(?:\.\w+)+)`", README))
    assert len(named) >= 3
    for name in named:
        assert pkgutil.resolve_name(name) is not None


def test_files_named_in_the_readme_exist():
    named = re.findall(r"`(?:examples/)?(\w+\.py)`", README)
    assert len(set(named)) >= 11
    for name in named:
        places = (ROOT / "examples", ROOT / "examples" / "learn2learn")
        assert any((place / name).is_file() for place in places), name


def test_the_readme_and_changelog_name_the_present_version():
    import l2l_evograd

    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{l2l_evograd.__version__}]" in changelog
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{l2l_evograd.__version__}"' in project


def test_extras_in_the_readme_are_those_of_the_project():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = project.split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", section, flags=re.MULTILINE))
    for choice in re.findall(r'pip install "\.\[([\w,]+)\]"', README):
        assert set(choice.split(",")) <= extras


def test_lines_are_of_readable_length():
    for name in ("README.md", "CHANGELOG.md"):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        long = [n for n, t in enumerate(lines, 1) if len(t) > 120 and t[:1] != "|"]
        assert not long
