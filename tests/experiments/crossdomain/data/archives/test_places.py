import pytest
from small_archives import (
    PLACES,
    by_rule,
    in_order,
    label_names,
    listed,
    places_by_letter,
    places_files,
    prepared,
    small,
    tree,
    write_tar,
)


@pytest.mark.parametrize("files", [places_files(), places_by_letter()])
def test_places_are_the_first_by_name_in_both_layouts(tmp_path, files):
    root = tmp_path / "root"
    prepared(small("places"), root, write_tar(tmp_path / "a.tar", files))
    assert label_names(root / "places") == list(PLACES)
    assert in_order(listed(root / "places")) == by_rule(
        PLACES, dict.fromkeys(PLACES, range(2))
    )
    images = [name for name in tree(root) if name.endswith(".jpg")]
    assert sorted(images) == [
        f"places/images/{name}/{n:08}.jpg" for name in PLACES for n in range(2)
    ]


def test_places_with_too_few_images_of_a_class(tmp_path):
    files = places_files(each=2)
    del files["places365_standard/train/barn/00000001.jpg"]
    archive = write_tar(tmp_path / "a.tar", files)
    with pytest.raises(
        ValueError, match="expected at least 2 images .* places, found 1 of 'barn'"
    ):
        prepared(small("places"), tmp_path / "root", archive)
