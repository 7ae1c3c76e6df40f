import os

import pytest

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.paths import expanded, folder_to_write


def test_a_path_that_is_free_or_a_folder_is_returned(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder_to_write("~/a/b") == tmp_path / "a" / "b"
    assert folder_to_write(tmp_path) == tmp_path
    (tmp_path / "link").symlink_to(tmp_path)
    assert folder_to_write(tmp_path / "link" / "new") == tmp_path / "link" / "new"
    (tmp_path / "file").write_text("")
    assert expanded("~/file", "--data") == tmp_path / "file"
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "--out: expected a path, got an empty one"),
        ("~nobody9/x", "--out: cannot find the home folder"),
        ("a\0b", "--out: expected the path to be text in UTF-8 without NUL"),
        ("\ud800", "--out: expected the path to be text in UTF-8"),
        ("é" * 200, "--out: the path is too long: expected at most 255 bytes"),
        ("a/" * 2000, "--out: the path is too long: expected at most 3795 bytes"),
        ("a/" * 300, "--out: the path is too deep: expected at most 200 folders"),
    ],
)
def test_a_text_that_is_no_folder_is_refused(path, message):
    with pytest.raises(InputError, match=message):
        folder_to_write(path)


def test_what_is_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    for place, message in {
        "file": "expected --out to be a folder, but .*file is a file",
        "file/a": "cannot make the folder .*file/a: .*file is a file, not a folder",
        "pipe": "pipe is a pipe or a device",
        "loop/a": "links go round",
        "nowhere/a": "nowhere is a link that leads nowhere",
    }.items():
        with pytest.raises(InputError, match=message):
            folder_to_write(tmp_path / place)
    for place, message in {
        "file/a": "--data: cannot use .*file/a: .*file is a file",
        "loop": "links go round",
        "nowhere/a": "nowhere is a link that leads nowhere",
    }.items():
        with pytest.raises(InputError, match=message):
            expanded(tmp_path / place, "--data")


def test_the_folder_in_which_the_user_is_may_be_gone(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    with pytest.raises(InputError, match="is gone; give the whole path"):
        folder_to_write("run")
