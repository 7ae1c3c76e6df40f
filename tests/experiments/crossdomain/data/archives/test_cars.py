import pytest
from small_archives import (
    CAR_NAMES,
    by_rule,
    cars_files,
    in_order,
    label_names,
    listed,
    matlab,
    prepared,
    small,
    tree,
    write_tar,
)


def test_cars_keep_the_order_of_their_names_and_get_safe_folders(tmp_path):
    train, kit = cars_files()
    archives = [
        write_tar(tmp_path / "cars_train.tgz", train),
        write_tar(tmp_path / "car_devkit.tgz", kit),
    ]
    root = tmp_path / "root"
    prepared(small("cars"), root, *archives)
    assert label_names(root / "cars") == list(CAR_NAMES)
    numbers = {name: (i, 9 - i) for i, name in enumerate(CAR_NAMES, 1)}
    assert in_order(listed(root / "cars")) == by_rule(CAR_NAMES, numbers)
    folders = {path.name for path in (root / "cars" / "images").iterdir()}
    assert folders == {name.replace("/", "-") for name in CAR_NAMES}
    # The other way round, they are the same.
    prepared(small("cars"), tmp_path / "again", *reversed(archives))
    assert tree(tmp_path / "again") == tree(root)


def test_one_archive_of_the_cars_names_the_other(tmp_path):
    train, kit = cars_files()
    train_archive = write_tar(tmp_path / "cars_train.tgz", train)
    kit_archive = write_tar(tmp_path / "car_devkit.tgz", kit)
    with pytest.raises(
        ValueError,
        match="cars_train_annos.mat from car_devkit.tgz .* found cars_train at",
    ):
        prepared(small("cars"), tmp_path / "root", train_archive)
    with pytest.raises(
        ValueError, match="from cars_train.tgz .* found devkit at the top of .*devkit"
    ):
        prepared(small("cars"), tmp_path / "root", kit_archive)
    with pytest.raises(ValueError, match="cars_meta.mat once, found devkit/.* and "):
        twice = write_tar(tmp_path / "twice.tgz", {**train, **kit})
        without = {k: v for k, v in kit.items() if "annos" not in k}
        other = write_tar(tmp_path / "other.tgz", without)
        prepared(small("cars"), tmp_path / "root", twice, other)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("cars_meta.mat", b"no MATLAB file", "cannot be read as a MATLAB file"),
        ("cars_meta.mat", b"", "cannot be read as a MATLAB file"),
        ("cars_meta.mat", matlab(names=[1]), "it has no variable class_names"),
        ("cars_train_annos.mat", matlab(annotations=[1]), "no fields fname and class"),
    ],
)
def test_annotations_of_cars_that_are_something_else(tmp_path, file, content, message):
    train, kit = cars_files()
    archive = write_tar(tmp_path / "a.tar", {**train, **kit, f"devkit/{file}": content})
    with pytest.raises(ValueError, match=f"devkit/{file} of .*a.tar .*: .*{message}"):
        prepared(small("cars"), tmp_path / "root", archive)


def test_annotations_of_cars_that_are_cut_short(tmp_path):
    train, kit = cars_files()
    name = "devkit/cars_train_annos.mat"
    whole = kit[name]
    for length in (100, 127, 150, len(whole) // 2):
        archive = write_tar(tmp_path / "a.tar", {**train, **kit, name: whole[:length]})
        with pytest.raises(ValueError, match="cars_train_annos.mat of .* cannot be"):
            prepared(small("cars"), tmp_path / "root", archive)


def test_cars_that_are_listed_but_not_there_or_of_no_class(tmp_path):
    train, kit = cars_files()
    del train["cars_train/00003.jpg"]
    archive = write_tar(tmp_path / "a.tar", {**train, **kit})
    with pytest.raises(ValueError, match="cars_train_annos.mat of .* lists 00003.jpg"):
        prepared(small("cars"), tmp_path / "root", archive)
    train, kit = cars_files(classes=(1, 2, 5, 4))
    archive = write_tar(tmp_path / "b.tar", {**train, **kit})
    with pytest.raises(ValueError, match="from 1 to 4, got 5 for 00003.jpg"):
        prepared(small("cars"), tmp_path / "root", archive)


def test_names_of_cars_cannot_lead_elsewhere(tmp_path):
    for names, message in (
        (("a", "..", "c", "d"), r"expected the name of a class, got '\.\.'"),
        (("a", "b/c", "b:c", "d"), "'b/c' and 'b:c' would both be unpacked to"),
    ):
        train, kit = cars_files(names=names)
        archive = write_tar(tmp_path / "a.tar", {**train, **kit})
        with pytest.raises(ValueError, match=message):
            prepared(small("cars"), tmp_path / "root", archive)
    assert not (tmp_path / "root").exists()
