import dataclasses
import json
from pathlib import Path

import pytest
from small_archives import cub_files, listed, prepared, small, tree, write_folder

from l2l_evograd.experiments.crossdomain.data.archives import remap


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """Lists of two domains whose images are in "new" now."""
    folder = write_folder(tmp_path / "old", cub_files())
    for root in ("root", "as it was"):
        prepared(small("cub"), tmp_path / root, folder)
        prepared(
            dataclasses.replace(small("cub"), name="birds"), tmp_path / root, folder
        )
    folder.rename(tmp_path / "new")
    return tmp_path / "root"


def test_lists_of_images_that_moved(tmp_path, moved):
    changed = remap(moved, str(tmp_path / "old"), str(tmp_path / "new"))
    assert changed == {
        moved / name / f"{split}.json": count
        for name in ("birds", "cub")
        for split, count in (("base", 12), ("val", 6), ("novel", 6))
    }
    (tmp_path / "new").rename(tmp_path / "old")
    before = listed(tmp_path / "as it was" / "cub")
    (tmp_path / "old").rename(tmp_path / "new")
    assert listed(moved / "cub") == before
    content = json.loads((moved / "cub" / "val.json").read_text())
    then = json.loads((tmp_path / "as it was" / "cub" / "val.json").read_text())
    assert content["label_names"] == then["label_names"]


def test_one_domain_alone(tmp_path, moved):
    before = tree(moved / "birds")
    changed = remap(moved, str(tmp_path / "old"), f"{tmp_path / 'new'}/", "cub")
    assert {path.parent.name for path in changed} == {"cub"}
    assert tree(moved / "birds") == before
    # The other one is left for later, and what is done is not done again.
    rest = remap(moved, str(tmp_path / "old"), str(tmp_path / "new"))
    assert {path.parent.name for path in rest} == {"birds"}


def test_relative_paths_and_namesakes_stay(tmp_path, moved):
    file = moved / "cub" / "val.json"
    content = json.loads(file.read_text())
    extra = [f"{tmp_path}/older/a.jpg", "old/a.jpg"]
    content["image_names"] += extra
    content["image_labels"] += [0, 0]
    content["note"] = "kept"
    file.write_text(json.dumps(content))
    changed = remap(moved, str(tmp_path / "old"), str(tmp_path / "new"), "cub")
    assert changed[file] == 6
    after = json.loads(file.read_text())
    assert after["image_names"][-2:] == extra
    assert after["note"] == "kept"


def test_nothing_is_changed_before_everything_is_checked(tmp_path, moved):
    before = tree(moved)
    first = json.loads((moved / "cub" / "val.json").read_text())["image_names"][0]
    Path(first.replace("/old/", "/new/")).unlink()
    with pytest.raises(ValueError, match=r"first image of .*val.json at .*/new/"):
        remap(moved, str(tmp_path / "old"), str(tmp_path / "new"))
    assert tree(moved) == before


def test_what_cannot_be_remapped(tmp_path, moved):
    old, new = str(tmp_path / "old"), str(tmp_path / "new")
    with pytest.raises(
        ValueError, match="begin with /nowhere, found none; the first path in"
    ):
        remap(moved, "/nowhere", new)
    with pytest.raises(ValueError, match="expected absolute paths .* got 'old'"):
        remap(moved, "old", new)
    with pytest.raises(ValueError, match="expected absolute paths .* got 'new'"):
        remap(moved, old, "new")
    with pytest.raises(ValueError, match="unknown data set 'cars' .* birds, cub"):
        remap(moved, old, new, "cars")
    with pytest.raises(ValueError, match="a folder of domains, found none at"):
        remap(tmp_path / "nowhere", old, new)
    (moved / "cub" / "val.json").write_text("{}")
    with pytest.raises(ValueError, match="a list under 'label_names' in .*val.json"):
        remap(moved, old, new)
