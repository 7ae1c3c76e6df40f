import pytest
from small_archives import (
    cub_files,
    listed,
    prepared,
    small,
    write_tar,
)

from l2l_evograd.experiments.crossdomain.data.archives.splits import split_by_rule


@pytest.mark.parametrize(
    ("classes", "sizes"),
    [(200, (100, 50, 50)), (196, (98, 49, 49)), (365, (183, 91, 91))],
)
def test_the_split_rule_gives_the_benchmarks_sizes(classes, sizes):
    splits = split_by_rule(classes)
    assert tuple(len(splits[split]) for split in ("base", "val", "novel")) == sizes
    assert sorted(sum(splits.values(), [])) == list(range(classes))


def test_images_of_a_class_are_shuffled_but_always_alike(tmp_path):
    archive = write_tar(tmp_path / "a.tar", cub_files(classes=4, each=30))
    layout = small("cub", counts=type(small("cub").counts)(4, 120))
    orders = []
    for name in ("one", "two"):
        prepared(layout, tmp_path / name, archive)
        orders.append(listed(tmp_path / name / "cub")["val"])
    assert orders[0] == orders[1]
    numbers = [int(comment.split()[1]) for _, comment in orders[0]]
    assert sorted(numbers) == list(range(30)) != numbers
