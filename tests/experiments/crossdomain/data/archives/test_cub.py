import pytest
from small_archives import (
    by_rule,
    cub_files,
    in_order,
    label_names,
    listed,
    prepared,
    small,
    tree,
    write_tar,
)

BIRDS = [f"{i + 1:03}.Bird_{i}" for i in range(8)]


def test_birds(tmp_path):
    archive = write_tar(tmp_path / "CUB_200_2011.tgz", cub_files())
    root = tmp_path / "root"
    made = prepared(small("cub"), root, archive)
    assert made.folder == root / "cub"
    assert made.classes == {"base": 4, "val": 2, "novel": 2}
    assert made.images == {"base": 12, "val": 6, "novel": 6}
    assert (made.unpacked, made.written) == (24, ["base", "val", "novel"])
    assert label_names(root / "cub") == BIRDS
    assert in_order(listed(root / "cub")) == by_rule(
        BIRDS, dict.fromkeys(BIRDS, range(3))
    )
    assert set(tree(root / "cub")) == {
        *("base.json", "val.json", "novel.json"),
        *(f"images/{name}/Bird_{n}.jpg" for name in BIRDS for n in range(3)),
    }


def test_a_bird_that_is_listed_but_not_there(tmp_path):
    files = cub_files()
    del files["CUB_200_2011/images/003.Bird_2/Bird_1.jpg"]
    archive = write_tar(tmp_path / "a.tar", files)
    with pytest.raises(
        ValueError, match=r"images.txt of .*a.tar lists 003.Bird_2/Bird_1.jpg, which"
    ):
        prepared(small("cub"), tmp_path / "root", archive)


def test_a_listing_that_is_no_text(tmp_path):
    files = {**cub_files(), "CUB_200_2011/images.txt": b"\xff\xfe\xfa"}
    archive = write_tar(tmp_path / "a.tar", files)
    with pytest.raises(ValueError, match="images.txt of .*: it is not text in UTF-8"):
        prepared(small("cub"), tmp_path / "root", archive)
