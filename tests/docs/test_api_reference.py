"""The reference describes every public name once, and nothing that does not exist."""

import importlib
import re
from collections import Counter

import pytest
from pages import ROOT

FOLDER = ROOT / "docs/api"

# The modules whose __all__ is public, and the names from elsewhere that pages mention.
MODULES = (
    "l2l_evograd",
    "l2l_evograd.oracle",
    "l2l_evograd.unroll",
    "l2l_evograd.search",
    "l2l_evograd.lightning",
    "l2l_evograd.experiments.noisy_labels",
)
OTHERS = (
    "l2l_evograd.estimators.Estimator",
    "l2l_evograd.estimators.Question",
    "l2l_evograd.experiments.crossdomain.data.tasksets.get_tasksets",
)

DIRECTIVES = [
    path
    for page in sorted(FOLDER.glob("*.md"))
    for path in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.M)
]


def found(path: str) -> object:
    """Return the object that a dotted path names."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def public() -> list[str]:
    """Return the paths of all public names."""
    paths = [f"{m}.{n}" for m in MODULES for n in importlib.import_module(m).__all__]
    return [*paths, *OTHERS]


@pytest.mark.parametrize("path", DIRECTIVES)
def test_a_directive_resolves(path):
    pytest.importorskip("pytorch_lightning")
    found(path)


def test_every_public_name_is_described_once():
    pytest.importorskip("pytorch_lightning")
    described = Counter(id(found(path)) for path in DIRECTIVES)
    assert [path for path in public() if described[id(found(path))] != 1] == []


def test_nothing_else_is_described():
    pytest.importorskip("pytorch_lightning")
    names = {id(found(path)) for path in public()}
    assert [path for path in DIRECTIVES if id(found(path)) not in names] == []


def test_the_index_links_every_public_name():
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\[([\w.]+)\]", index))
    # hypergradcheck is linked where the oracle is.
    assert {*public()} - linked == {"l2l_evograd.hypergradcheck"}


def test_links_lead_to_what_is_described():
    anchors = {*DIRECTIVES}
    for page in FOLDER.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        anchors |= set(re.findall(r"^\[\]\(\)\{ #([\w.]+) \}$", text, re.M))
    for page in ROOT.glob("docs/**/*.md"):
        text = page.read_text(encoding="utf-8")
        for path in re.findall(r"\]\[(l2l_evograd[\w.]*)\]", text):
            assert path in anchors, f"{page.relative_to(ROOT)}: {path}"
