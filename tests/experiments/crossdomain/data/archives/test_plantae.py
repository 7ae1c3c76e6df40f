from small_archives import (
    by_rule,
    in_order,
    label_names,
    listed,
    plantae_files,
    prepared,
    small,
    tree,
    write_tar,
)


def test_plants_come_by_size_and_then_by_number(tmp_path):
    root = tmp_path / "root"
    prepared(
        small("plantae"),
        root,
        write_tar(tmp_path / "train_val2018.tar.gz", plantae_files()),
    )
    order = ["2", "9", "10", "71", "100"]
    assert label_names(root / "plantae") == order
    taken = {"2": range(3), "9": range(3), "10": range(3), "71": (0, 1), "100": (0, 1)}
    assert in_order(listed(root / "plantae")) == by_rule(order, taken)
    # Of the largest, the fourth and fifth image stay in the archive.
    assert sum(name.endswith(".jpg") for name in tree(root)) == 13
