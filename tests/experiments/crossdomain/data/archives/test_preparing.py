import errno
import gzip
import json
import os
import resource
import tarfile
from pathlib import Path

import pytest
from small_archives import cub_files, prepared, small, tree, write_tar

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.crossdomain.data.archives.sources import (
    FolderSource,
    Member,
)
from l2l_evograd.experiments.crossdomain.data.archives.unpacking import check_space
from l2l_evograd.lock import locked


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_tar(tmp_path / "CUB_200_2011.tgz", cub_files())


def stopping_after(images: int, monkeypatch: pytest.MonkeyPatch, error: BaseException):
    """Let writing images fail half-way through one, after some."""
    written = iter(range(images + 1))
    real = Path.write_bytes

    def write(place: Path, content: bytes) -> int:
        if next(written, images) == images:
            real(place, content[: len(content) // 2])
            raise error
        return real(place, content)

    monkeypatch.setattr(Path, "write_bytes", write)


@pytest.mark.parametrize("images", [0, 1, 11, 23])
def test_a_run_that_is_stopped_and_repeated_is_as_one_run(
    tmp_path, archive, monkeypatch, images
):
    with monkeypatch.context() as patched:
        stopping_after(images, patched, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            prepared(small("cub"), tmp_path / "two", archive)
    left = tree(tmp_path / "two")
    assert len(left) == images and all(name.endswith(".jpg") for name in left)
    made = prepared(small("cub"), tmp_path / "two", archive)
    assert made.unpacked == 24 - images
    prepared(small("cub"), tmp_path / "one", archive)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_what_a_killed_process_leaves_is_replaced(tmp_path, archive):
    prepared(small("cub"), tmp_path / "one", archive)
    image = tmp_path / "two" / "cub" / "images" / "002.Bird_1" / "Bird_0.jpg"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"cut")
    image.with_name(".Bird_1.unfinished.jpg").write_bytes(b"half")
    prepared(small("cub"), tmp_path / "two", archive)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_between_two_lists_a_run_may_be_killed_too(tmp_path, archive):
    prepared(small("cub"), tmp_path / "one", archive)
    whole = tree(tmp_path / "one")
    (tmp_path / "one" / "cub" / "novel.json").unlink()
    made = prepared(small("cub"), tmp_path / "one", archive)
    assert (made.unpacked, made.written) == (0, ["novel"])
    assert tree(tmp_path / "one") == whole


def test_a_second_run_changes_nothing(tmp_path, archive):
    prepared(small("cub"), tmp_path / "root", archive)

    def states() -> dict[Path, tuple[int, int]]:
        found = {path: path.stat() for path in (tmp_path / "root").rglob("*")}
        return {path: (at.st_mtime_ns, at.st_ino) for path, at in found.items()}

    before = states()
    made = prepared(small("cub"), tmp_path / "root", archive)
    assert (made.unpacked, made.written) == (0, [])
    assert made.images == {"base": 12, "val": 6, "novel": 6}
    assert states() == before


def test_an_image_that_was_lost_comes_back(tmp_path, archive):
    prepared(small("cub"), tmp_path / "root", archive)
    whole = tree(tmp_path / "root")
    (tmp_path / "root/cub/images/002.Bird_1/Bird_0.jpg").unlink()
    made = prepared(small("cub"), tmp_path / "root", archive)
    assert (made.unpacked, made.written) == (1, [])
    assert tree(tmp_path / "root") == whole


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_whole_images_and_no_list(
    tmp_path, archive, monkeypatch, number
):
    with monkeypatch.context() as patched:
        stopping_after(5, patched, OSError(number, os.strerror(number)))
        with pytest.raises(
            ValueError, match="disk is full: no space for .*Bird_2.jpg; "
        ):
            prepared(small("cub"), tmp_path / "root", archive)
    left = list(tree(tmp_path / "root"))
    assert len(left) == 5 and all("unfinished" not in name for name in left)
    assert prepared(small("cub"), tmp_path / "root", archive).unpacked == 19


def test_a_folder_that_cannot_be_written_to(tmp_path, archive, monkeypatch):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "root"):
        with pytest.raises(
            InputError, match="--out to be a f|file is a file, not a folder"
        ):
            prepared(small("cub"), root, archive)
    stopping_after(0, monkeypatch, PermissionError(13, "Permission denied"))
    with pytest.raises(InputError, match="cannot write .*jpg .Permission denied"):
        prepared(small("cub"), tmp_path / "root", archive)


def test_lists_of_other_images_are_not_replaced(tmp_path, archive):
    path = tmp_path / "root" / "cub" / "val.json"
    path.parent.mkdir(parents=True)
    others = {"label_names": ["a"], "image_names": ["/a.jpg"], "image_labels": [0]}
    path.write_text(json.dumps(others))
    with pytest.raises(ValueError, match="val.json already exists and lists other im"):
        prepared(small("cub"), tmp_path / "root", archive)
    path.write_text("no JSON")
    with pytest.raises(ValueError, match="val.json is not JSON"):
        prepared(small("cub"), tmp_path / "root", archive)
    assert tree(tmp_path / "root") == {"cub/val.json": b"no JSON"}


def test_two_runs_into_one_folder_are_refused(tmp_path):
    archive = write_tar(tmp_path / "a.tgz", cub_files())
    with locked(tmp_path / "root" / "cub"):
        with pytest.raises(InputError, match="another run is writing to .*cub"):
            prepared(small("cub"), tmp_path / "root", archive)
        assert list((tmp_path / "root").rglob("*.jpg")) == []
    assert prepared(small("cub"), tmp_path / "root", archive).unpacked == 24


def test_too_little_space_is_noticed_before_anything_is_unpacked(tmp_path):
    member = Member(FolderSource(tmp_path), "a.jpg", 2**60)
    with pytest.raises(InputError, match="the images take 1,152,921,504.61 GB"):
        check_space({tmp_path / "a.jpg": member}, tmp_path)
    check_space({tmp_path / "a.jpg": member._replace(size=1)}, tmp_path)


def test_a_list_that_inflates_takes_no_memory(tmp_path):
    """Its 600 MB took 7 GB: the bytes, the text, and the lines."""
    member = tarfile.TarInfo("CUB_200_2011/images.txt")
    member.size = 600 * 10**6
    content = gzip.compress(member.tobuf()) + 10 * gzip.compress(bytes(6 * 10**7), 1)
    (tmp_path / "a.tgz").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        InputError, match="at most 16 MiB in .*images.txt.* 600,000,000"
    ):
        prepared(small("cub"), tmp_path / "root", tmp_path / "a.tgz")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    assert not (tmp_path / "root").exists()
