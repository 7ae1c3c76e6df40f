import json

import pytest
from small_archives import (
    CAR_NAMES,
    cars_files,
    cub_files,
    mini_files,
    places_files,
    plantae_files,
    prepared,
    small,
    write_tar,
)

from l2l_evograd.experiments.crossdomain.data.archives import LAYOUTS
from l2l_evograd.experiments.crossdomain.data.domains import read_domains


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
