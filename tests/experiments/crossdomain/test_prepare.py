import gzip
import shlex
import signal
import tarfile
import threading
from pathlib import Path

import pytest
from small_archives import cub_files, small, tree, write_folder, write_tar

from l2l_evograd import cli
from l2l_evograd.experiments.crossdomain.data.archives import LAYOUTS


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(LAYOUTS, "cub", small("cub"))
    return write_tar(tmp_path / "CUB_200_2011.tgz", cub_files())


def test_a_data_set_is_prepared_once(tmp_path, archive, capsys):
    root = tmp_path / "root"
    arguments = ["prepare", "cub", "--archive", str(archive), "--out", str(root)]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.splitlines() == [
        "base: 4 classes, 12 images",
        "val: 2 classes, 6 images",
        "novel: 2 classes, 6 images",
        f"{root}/cub: 24 images unpacked and base.json, val.json, novel.json written",
    ]
    before = tree(root)
    assert cli.main(arguments) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"{root}/cub is complete already; nothing was changed"
    assert tree(root) == before
    (root / "cub" / "images" / "001.Bird_0" / "Bird_0.jpg").unlink()
    assert cli.main(arguments) == 0
    assert "1 images unpacked and no list written" in capsys.readouterr().out


def test_lists_are_remapped(tmp_path, archive, capsys):
    folder = write_folder(tmp_path / "old", cub_files())
    root = ["--out", str(tmp_path / "root")]
    assert cli.main(["prepare", "cub", "--archive", str(folder), *root]) == 0
    folder.rename(tmp_path / "new")
    capsys.readouterr()
    moved = f"{folder}={tmp_path / 'new'}"
    assert cli.main(["prepare", "--remap", moved, *root]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/root/cub/{split}.json: {count} paths changed"
        for split, count in (("base", 12), ("val", 6), ("novel", 6))
    ]
    assert cli.main(["prepare", "cub", "--remap", moved, *root]) == 2
    assert "found none; the first path in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["birds", "--archive", "ARCHIVE"],
            "expected the name of a data set to be one of 'miniImagenet'",
        ),
        (["--archive", "ARCHIVE"], "name of a data set to be one of 'miniImagenet'"),
        (["cub"], "expected CUB_200_2011.tgz with CUB_200_2011/images.txt and"),
        (["cub", "--archive", "/nowhere/a.tgz"], "at /nowhere/a.tgz, found nothing"),
        (["cars", "--archive", "ARCHIVE"], "from car_devkit.tgz"),
        (["places", "--archive", "ARCHIVE"], "found attributes.txt, CUB_200_2011 at"),
        (
            ["cub", "--remap", "old"],
            "expected --remap OLD=NEW, the folder in the lists",
        ),
        (["cub", "--remap", "/old="], "expected --remap OLD=NEW, the folder in the l"),
        (
            ["--remap", "/a=/b", "--archive", "ARCHIVE"],
            "--archive or --remap, got both",
        ),
        (["--remap", "/a=/b"], "expected a folder of domains, found none at"),
        (["cub", "--sort"], "Unknown option: --sort"),
    ],
)
def test_bad_input_to_prepare_is_one_line_and_leaves_nothing(
    arguments, message, tmp_path, archive, capsys
):
    given = [str(archive) if word == "ARCHIVE" else word for word in arguments]
    assert cli.main(["prepare", *given, "--out", str(tmp_path / "root")]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("error: ") and message in line
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == [archive]


def test_a_folder_for_the_lists_is_asked_for(capsys, archive):
    assert cli.main(["prepare", "cub", "--archive", str(archive)]) == 2
    assert "parameter --out requires an argument" in capsys.readouterr().err


def test_an_archive_cut_short_is_one_line(tmp_path, archive, capsys):
    archive.write_bytes(archive.read_bytes()[:-700])
    root = tmp_path / "root"
    arguments = ["prepare", "cub", "--archive", str(archive), "--out", str(root)]
    assert cli.main(arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert (
        f"{archive} is cut short or damaged (" in line and "download it again" in line
    )
    assert not root.exists()


def write_endless(path: Path) -> Path:
    """Write an archive with a file of 16 GiB, which takes long to read."""
    member = tarfile.TarInfo("zeros")
    member.size = 256 * 2**26
    zeros = gzip.compress(bytes(2**26), 1)
    path.write_bytes(gzip.compress(member.tobuf()) + 256 * zeros)
    return path


def test_an_interrupt_of_prepare_says_how_to_go_on(tmp_path, archive, capsys):
    root = tmp_path / "a root"
    archive = write_endless(tmp_path / "CUB_200_2011.tar.gz")
    arguments = ["prepare", "cub", "--archive", str(archive), "--out", str(root)]
    main = threading.main_thread().ident
    threading.Timer(1.5, signal.pthread_kill, [main, signal.SIGINT]).start()
    assert cli.main(arguments) == 130
    said = capsys.readouterr().err
    assert said.startswith("interrupted; finished files are kept; continue with: l2l-")
    assert said.count("\n") == 1
    assert shlex.split(said.partition("l2l-evograd ")[2]) == arguments


def test_help_says_which_archives_are_expected(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert cli.main(["prepare", "--help"]) == 0
    shown = capsys.readouterr().out
    for name in LAYOUTS:
        assert name in shown
    for archive in ("mini_imagenet_full_size.tar.bz2", "CUB_200_2011.tgz"):
        assert archive in shown
    assert "--remap" in shown and "OLD=NEW" in shown
