"""Blocks of the pages: warnings that are no faults of ours, and what blocks leave."""

import pytest
import torch

NOT_OURS = (
    # Lightning asks newer releases of torch in a way that they deprecate.
    r"ignore:.*isinstance\(treespec, LeafSpec\)",
    # learn2learn's steps log to a logger even where there is none.
    "ignore:You called `self.log",
    # On machines with more cores than these small examples need.
    "ignore:The '.*_dataloader' does not have many workers",
)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.name in ("test_python_blocks.py", "test_migration.py"):
            for text in NOT_OURS:
                item.add_marker(pytest.mark.filterwarnings(text))


@pytest.fixture(autouse=True)
def default_dtype():
    """Put back what a block may have set for its whole process."""
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)
