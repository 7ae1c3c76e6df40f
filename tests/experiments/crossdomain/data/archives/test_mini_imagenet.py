import pytest
from small_archives import (
    MINI,
    in_order,
    label_names,
    listed,
    mini_files,
    mini_tables,
    prepared,
    small,
    write_folder,
    write_tar,
    write_zip,
)


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
        ({"val.csv": None}, "expected val.csv from the archive with the tables"),
        (
            {"val.csv": b"file,label\n"},
            r"columns filename,label, got \['file', 'label'",
        ),
        ({"val.csv": b"filename,label\na.jpg\n"}, "line 2 has 1 columns, not 2"),
        ({"images/n05_1.jpg": None}, "val.csv of .* lists images/n05_1.jpg, which"),
        (
            {"val.csv": b"filename,label\nn09_1.jpg,n09\n"},
            "every class in only one split, found 'n09' in val",
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
