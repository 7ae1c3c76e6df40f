import pytest
import torch
from pages import blocks

# Libraries that not every Python has: a block that needs one is left out there.
OPTIONAL = ("betty", "dehb", "higher", "learn2learn", "optuna", "torchopt")

BLOCKS = blocks("python")


@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: f"{b.page}:{b.line}")
def test_a_block_runs_by_itself(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    # Lines are counted from the top of the page, so that a traceback names them.
    code = "\n" * (block.line - 1) + block.code
    names: dict[str, object] = {"__name__": "__main__"}
    try:
        exec(compile(code, block.page, "exec"), names)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in OPTIONAL:
            raise
        pytest.skip(f"{error.name} is not installed")
    # What a block is about comes out with something in it.
    for name in ("decay", "weights"):
        found = names.get(name)
        if isinstance(found, torch.Tensor) and found.grad is not None:
            assert found.grad.abs().min() > 0
    if hasattr(names.get("result"), "gradients"):
        assert names["result"].gradients.abs().min() > 0  # type: ignore[attr-defined]


def test_each_way_in_is_shown():
    shown = "\n".join(block.code for block in BLOCKS)
    for name in (
        "EvoGradMetaOptimizer(",
        "LightningEvoGrad(",
        "hyperparameters=",
        "task_losses(",
        "hypergradient(",
        "bilevel_gradients(",
        "bilevel_step(",
        "reweighting_step(",
        "compare(",
        "hypergradcheck(",
        "add_feature_transforms(",
        "WarpGrad(",
        "ARUBA(",
        "forward_mode(",
        "reversible_sgd(",
        "search(",
    ):
        assert name in shown, name
