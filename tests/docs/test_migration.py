"""Both blocks of each pair in docs/migration.md compute the same."""

import re
from typing import Any, NamedTuple

import pytest
import torch
from pages import ROOT, Block, blocks

PAGE = "docs/migration.md"
OURS = "l2l_evograd"
OTHERS = {"learn2learn", "higher", "TorchOpt", "Betty"}

# What blocks leave behind to be compared. Of a "direction" the length is another one.
RESULTS = (
    "meta_gradient",
    "rate_gradient",
    "gradient",
    "weights_after",
    "figures",
    "direction",
)


class Pair(NamedTuple):
    """A problem in another library and in this one."""

    library: str
    theirs: Block
    ours: Block


def pairs() -> list[Pair]:
    lines = (ROOT / PAGE).read_text(encoding="utf-8").splitlines()
    tabs = []
    for block in blocks("python"):
        if block.page == PAGE:
            above = reversed(lines[: block.line - 1])
            label = next(m[1] for t in above if (m := re.match('=== "(.*)"$', t)))
            tabs.append((label, block))
    assert [label for label, _ in tabs[1::2]] == [OURS] * (len(tabs) // 2)
    return [
        Pair(label, theirs, ours)
        for (label, theirs), (_, ours) in zip(tabs[::2], tabs[1::2], strict=True)
    ]


PAIRS = pairs()


def run(block: Block) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "__main__"}
    code = "\n" * (block.line - 1) + block.code
    exec(compile(code, block.page, "exec"), names)
    return {name: names[name] for name in RESULTS if name in names}


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"{p.library}:{p.ours.line}")
def test_both_blocks_of_a_pair_agree(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pytest.importorskip({"Betty": "betty"}.get(pair.library, pair.library.lower()))
    theirs, ours = run(pair.theirs), run(pair.ours)
    assert theirs and theirs.keys() == ours.keys()
    for name, found in ours.items():
        if name == "direction":
            cosine = torch.cosine_similarity(found, theirs[name], dim=0)
            assert cosine > 0.999
            assert theirs[name].norm() / found.norm() == pytest.approx(10, rel=0.02)
            continue
        # Adam makes steps of 0.01 even of gradients that are mostly rounding.
        atol = 1e-4 if name == "weights_after" else 1e-6
        torch.testing.assert_close(found, theirs[name], rtol=1e-5, atol=atol)
        if name != "figures":
            largest = max(float(tensor.abs().max()) for tensor in found)
            assert largest > 1e-3  # zeros would agree too


def test_each_library_is_there():
    assert {pair.library for pair in PAIRS} == OTHERS
