import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from small_archives import (
    cars_files,
    cub_files,
    listed,
    photo,
    places_files,
    prepared,
    small,
    tree,
    write_folder,
    write_tar,
    write_zip,
)

from l2l_evograd.experiments.crossdomain.data.archives import packed
from l2l_evograd.experiments.crossdomain.data.archives.packed import open_source

TARS = ["a.tar", "a.tgz", "a.tar.bz2", "a.tar.xz"]


def write(path: Path, files: dict[str, bytes]) -> Path:
    return (write_zip if path.suffix == ".zip" else write_tar)(path, files)


@pytest.mark.parametrize("name", [*TARS, "a.zip"])
def test_every_kind_of_archive_gives_the_same(tmp_path, name):
    prepared(small("cub"), tmp_path / "one", write_tar(tmp_path / "1", cub_files()))
    dotted = {f"./{member}": content for member, content in cub_files().items()}
    prepared(small("cub"), tmp_path / "two", write(tmp_path / name, dotted))
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert len(tree(tmp_path / "one")) == 24 + 3


def test_images_of_a_folder_stay_where_they_are(tmp_path):
    folder = write_folder(tmp_path / "unpacked", cub_files())
    prepared(small("cub"), tmp_path / "one", write_tar(tmp_path / "1", cub_files()))
    for given in (folder, folder / "CUB_200_2011"):
        root = tmp_path / f"root of {given.name}"
        made = prepared(small("cub"), root, given)
        assert made.unpacked == 0
        assert set(tree(root)) == {f"cub/{split}.json" for split in made.images}
        assert listed(root / "cub") == listed(tmp_path / "one" / "cub")
        assert (
            str(folder / "CUB_200_2011/images") in (root / "cub/val.json").read_text()
        )


def test_a_folder_below_the_lists_is_listed_relative_to_them(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "root")
    for root in (tmp_path / "root", tmp_path / "link"):
        folder = write_folder(root / "cub", cub_files())
        made = prepared(small("cub"), root, folder)
        assert str(tmp_path) not in (root / "cub" / "val.json").read_text()
        for split in made.images:
            (root / "cub" / f"{split}.json").unlink()


def test_folders_inside_the_archives_will_do_and_links_in_them(tmp_path):
    train, kit = cars_files()
    write_folder(tmp_path / "there", {**train, **kit})
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "cars_train").symlink_to(tmp_path / "there" / "cars_train")
    for images in (tmp_path / "there" / "cars_train", tmp_path / "here"):
        root = tmp_path / f"root of {images.name}"
        prepared(small("cars"), root, images, tmp_path / "there" / "devkit")
        assert len(listed(root / "cars")["base"]) == 4


def test_an_archive_and_its_folder_together_are_refused(tmp_path):
    folder = write_folder(tmp_path / "unpacked", places_files())
    archive = write_tar(tmp_path / "a.tar", places_files())
    with pytest.raises(
        ValueError, match="one image .*jpg of the class .* each archive"
    ):
        prepared(small("places"), tmp_path / "root", folder, archive)


def refused(root: Path, archive: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        prepared(small("cub"), root, archive)
    assert str(archive) in str(raised.value) and "\n" not in str(raised.value)
    assert list(root.rglob("*.json")) == []


@pytest.mark.parametrize("name", [*TARS, "a.zip"])
def test_an_archive_cut_short_is_refused_and_leaves_no_lists(tmp_path, name):
    archive = write(tmp_path / name, cub_files())
    whole = archive.read_bytes()
    lengths = [300, 520, len(whole) // 3, len(whole) // 2, 9 * len(whole) // 10]
    if name == "a.tar":
        with tarfile.open(archive) as opened:
            last = opened.getmembers()[-1]
        # At the end of a member, within its header and within its padding.
        lengths = [600, last.offset, last.offset + 100, last.offset_data + 10]
        lengths += [last.offset_data + 512 * (-(-last.size // 512))]
    else:
        lengths += [len(whole) - 1]
    for length in lengths:
        archive.write_bytes(whole[:length])
        refused(tmp_path / "root", archive, "(cut short or damaged|neither).* download")
    archive.write_bytes(whole)
    prepared(small("cub"), tmp_path / "root", archive)


def test_a_garbled_header_is_not_taken_for_the_end(tmp_path):
    archive = write_tar(tmp_path / "a.tar", cub_files())
    with tarfile.open(archive) as opened:
        header = opened.getmembers()[10].offset
    content = bytearray(archive.read_bytes())
    content[header + 5] ^= 255
    archive.write_bytes(content)
    refused(
        tmp_path / "root", archive, "is cut short or damaged .*bad checksum at byte"
    )


def test_a_damaged_image_in_a_zip_is_noticed_when_it_is_unpacked(tmp_path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for name, content in cub_files().items():
            opened.writestr(name, content)
    content = archive.read_bytes()
    image = cub_files()["CUB_200_2011/images/004.Bird_3/Bird_1.jpg"]
    at = content.index(image)
    archive.write_bytes(content[: at + 9] + b"\0" + content[at + 10 :])
    refused(tmp_path / "root", archive, "is cut short or damaged .*Bad CRC-32")


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>" + 600 * b" "])
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "a.tgz").write_bytes(content)
    refused(tmp_path / "root", tmp_path / "a.tgz", "expected an archive .* is neither")


def test_what_is_compressed_but_no_archive_is_refused(tmp_path):
    (tmp_path / "a.tgz").write_bytes(gzip.compress(b"an image" * 1000))
    refused(tmp_path / "root", tmp_path / "a.tgz", "is cut short or damaged")


def test_what_is_missing_or_may_not_be_read(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="unpacked folder at .*a.tgz, found no"):
        open_source(tmp_path / "a.tgz")
    (tmp_path / "a.tgz").write_bytes(b"")
    monkeypatch.setattr(packed.os, "access", lambda *_: False)
    with pytest.raises(ValueError, match="cannot read .*a.tgz"):
        open_source(tmp_path / "a.tgz")


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "unpacked", cub_files())
    real = os.scandir

    def refusing(path):
        if Path(path).name == "images":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(ValueError, match="cannot read .*images.: Permission denied"):
        prepared(small("cub"), tmp_path / "root", folder)


@pytest.mark.parametrize(
    "name",
    [
        "../evil.jpg",
        "CUB_200_2011/images/../../../evil.jpg",
        "/evil.jpg",
        "CUB_200_2011/images/001.Bird_0/..\\..\\..\\evil.jpg",
        "C:\\evil.jpg",
        "\\\\host\\share\\evil.jpg",
    ],
)
@pytest.mark.parametrize("kind", ["a.tar", "a.zip"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, name, kind):
    files = {**cub_files(), name: photo("evil", 0)}
    archive = write(tmp_path / kind, files)
    before = tree(tmp_path)
    refused(tmp_path / "root", archive, "below the folder .* which leads out of it")
    assert tree(tmp_path) == before
    assert not Path("/evil.jpg").exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as opened:
        member = tarfile.TarInfo("CUB_200_2011/images/001.Bird_0")
        member.type, member.linkname = kind, "/etc"
        opened.addfile(member)
        for name, content in cub_files().items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    refused(tmp_path / "root", archive, "only files and folders, found .*, a link or")


def test_links_and_encrypted_files_in_a_zip_are_refused(tmp_path):
    archive = write_zip(tmp_path / "a.zip", cub_files())
    with zipfile.ZipFile(archive, "a") as opened:
        member = zipfile.ZipInfo("CUB_200_2011/images/link.jpg")
        member.external_attr = 0o120777 << 16
        opened.writestr(member, "/etc/passwd")
    refused(tmp_path / "root", archive, "found 'CUB_200_2011/images/link.jpg', a link")
    content = bytearray(write_zip(tmp_path / "b.zip", cub_files()).read_bytes())
    # The last entry of the directory at the end; its flags are at byte 8.
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "b.zip").write_bytes(content)
    refused(tmp_path / "root", tmp_path / "b.zip", "is encrypted, or compressed with")
