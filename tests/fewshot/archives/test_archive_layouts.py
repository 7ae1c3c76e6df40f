import json

import pytest
from small_archives import (
    CAR_NAMES,
    MINI,
    PLACES,
    by_rule,
    cars_files,
    cub_files,
    in_order,
    label_names,
    listed,
    matlab,
    mini_files,
    mini_tables,
    places_by_letter,
    places_files,
    plantae_files,
    prepared,
    small,
    tree,
    write_folder,
    write_tar,
    write_zip,
)

from l2l_evograd.fewshot.archives import LAYOUTS
from l2l_evograd.fewshot.archives.splits import split_by_rule
from l2l_evograd.fewshot.domains import read_domains

BIRDS = [f"{i + 1:03}.Bird_{i}" for i in range(8)]


@pytest.mark.parametrize(
    ("classes", "sizes"),
    [(200, (100, 50, 50)), (196, (98, 49, 49)), (365, (183, 91, 91))],
)
def test_the_split_rule_gives_the_benchmarks_sizes(classes, sizes):
    splits = split_by_rule(classes)
    assert tuple(len(splits[split]) for split in ("base", "val", "novel")) == sizes
    assert sorted(sum(splits.values(), [])) == list(range(classes))


def test_the_counts_are_those_of_the_data_sets():
    counts = {name: layout.counts for name, layout in LAYOUTS.items()}
    assert {name: (of.classes, of.images) for name, of in counts.items()} == {
        "miniImagenet": (100, 60_000),
        "cub": (200, 11_788),
        "cars": (196, 8_144),
        "places": (365, None),
        "plantae": (2_917, 127_551),
    }
    assert counts["miniImagenet"].splits == (64, 16, 20)
    assert counts["miniImagenet"].least == 600
    assert counts["places"].least == LAYOUTS["places"].most == 200
    assert (LAYOUTS["plantae"].largest, LAYOUTS["plantae"].most) == (200, 600)


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


def test_what_is_written_is_what_crossdomain_reads(tmp_path):
    root = tmp_path / "root"
    prepared(small("cub"), root, write_tar(tmp_path / "a.tgz", cub_files()))
    train, kit = cars_files()
    archives = write_tar(tmp_path / "b.tgz", train), write_tar(tmp_path / "c.tgz", kit)
    prepared(small("cars"), root, *archives)
    domains = read_domains(root, 6)
    assert list(domains) == ["cars", "cub"]
    base = domains["cub"].splits["base"]
    assert sorted(base.labels) == [i for i in (0, 2, 4, 6) for _ in range(3)]
    assert base[0][0].shape == (3, 6, 6)
    assert domains["cars"].splits["novel"].label_names == list(CAR_NAMES)


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
        match="cars_train_annos.mat, which car_devkit.tgz holds .* found cars_train at",
    ):
        prepared(small("cars"), tmp_path / "root", train_archive)
    with pytest.raises(
        ValueError, match="cars_train.tgz holds .* found devkit at the top of .*devkit"
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
        ("cars_meta.mat", b"no MATLAB file", "does not read as a MATLAB file"),
        ("cars_meta.mat", b"", "does not read as a MATLAB file"),
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
    with pytest.raises(ValueError, match="00003.jpg is of class 5 of 4"):
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
        ValueError, match="expected 2 images or more .* places, found 1 of 'barn'"
    ):
        prepared(small("places"), tmp_path / "root", archive)


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


@pytest.mark.parametrize("kind", ["folders", "tables", "tables in an archive"])
def test_mini_imagenet_keeps_its_own_splits(tmp_path, kind):
    root = tmp_path / "root"
    if kind == "folders":
        source = write_tar(tmp_path / "mini.tar.bz2", mini_files())
    elif kind == "tables":
        source = write_folder(tmp_path / "mini", mini_tables())
    else:
        source = write_zip(tmp_path / "mini.zip", mini_tables())
    made = prepared(small("miniImagenet"), root, source)
    names = ["n02", "n09", "n05", "n01"]
    assert label_names(made.folder) == names
    assert in_order(listed(made.folder)) == {
        "base": [
            (i, f"{name} {n}") for i, name in enumerate(names[:2]) for n in (0, 1, 2)
        ],
        "val": [(2, f"n05 {n}") for n in (0, 1, 2)],
        "novel": [(3, f"n01 {n}") for n in (0, 1, 2)],
    }


def test_tables_with_spaces_and_images_in_folders(tmp_path):
    files = {}
    for split, names in MINI.items():
        rows = ["filename , label"]
        for name, content in mini_files().items():
            _, given, label, file = name.split("/")
            if given == split:
                files[f"mini/images/{label}/{file}"] = content
                rows.append(f"{label}/{file}, {label}")
        assert len(rows) == 1 + 3 * len(names)
        files[f"mini/{split}.csv"] = "\r\n".join(rows).encode() + b"\r\n"
    made = prepared(
        small("miniImagenet"), tmp_path / "root", write_zip(tmp_path / "a.zip", files)
    )
    assert made.images == {"base": 6, "val": 3, "novel": 3}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val.csv": None}, "expected val.csv, which the archive with the tables"),
        (
            {"val.csv": b"file,label\n"},
            r"columns filename,label, got \['file', 'label'",
        ),
        ({"val.csv": b"filename,label\na.jpg\n"}, "line 2 has 1 columns, not 2"),
        ({"images/n05_1.jpg": None}, "val.csv of .* lists images/n05_1.jpg, which"),
        (
            {"val.csv": b"filename,label\nn09_1.jpg,n09\n"},
            "every class in one split, found 'n09' in val",
        ),
    ],
)
def test_tables_that_are_malformed(tmp_path, changes, message):
    files = {**mini_tables(), **changes}
    whole = {name: content for name, content in files.items() if content is not None}
    source = write_zip(tmp_path / "mini.zip", whole)
    with pytest.raises(ValueError, match=message):
        prepared(small("miniImagenet"), tmp_path / "root", source)


def test_other_splits_are_refused(tmp_path):
    files = {
        name.replace("/train/n02/", "/val/n02/"): content
        for name, content in mini_files().items()
    }
    archive = write_tar(tmp_path / "a.tar", files)
    with pytest.raises(ValueError, match="2, 1, 1 classes in .* found 1, 2, 1; give"):
        prepared(small("miniImagenet"), tmp_path / "root", archive)


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        (
            "cub",
            cub_files(),
            "200 classes and 11,788 images in cub, found 8 classes and 24",
        ),
        (
            "places",
            places_files(),
            "365 classes in places, found 4 classes and 16 images",
        ),
        ("plantae", plantae_files(), "2,917 classes and 127,551 .* 6 classes and 16 "),
        ("miniImagenet", mini_files(), "100 classes and 60,000 .* 4 classes and 12 "),
        ("cars", {**cars_files()[0], **cars_files()[1]}, "196 .* 8,144 .* 4 .* 8 "),
    ],
)
def test_other_counts_are_refused_with_both_named(tmp_path, name, files, message):
    archive = write_tar(tmp_path / "a.tar", files)
    with pytest.raises(ValueError, match=message):
        prepared(LAYOUTS[name], tmp_path / "root", archive)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("name", ["cub", "cars", "places", "plantae", "miniImagenet"])
def test_another_archive_is_refused_with_what_it_holds(tmp_path, name):
    many = {f"folder{i}/a.jpg": b"" for i in range(7)}
    archive = write_tar(tmp_path / "a.tar", many)
    with pytest.raises(
        ValueError,
        match="expected .*; found folder0, folder1, .* folder4 and 2 more at the top",
    ):
        prepared(small(name), tmp_path / "root", archive)


def test_lists_are_plain_json_with_the_three_keys(tmp_path):
    root = tmp_path / "root"
    prepared(small("cub"), root, write_tar(tmp_path / "a.tar", cub_files()))
    content = json.loads((root / "cub" / "val.json").read_text())
    assert set(content) == {"label_names", "image_names", "image_labels"}
    assert all(name.startswith("images/00") for name in content["image_names"])
