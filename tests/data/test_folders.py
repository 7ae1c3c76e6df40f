import os
from pathlib import Path

import pytest

from l2l_evograd.checks import InputError
from l2l_evograd.data.folders import check_name, given_path, is_folder, walked


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty one"),
        ("a\0b", "without NUL"),
        ("\udcff", "UTF-8"),
        ("x" * 5000, "at most 4096 letters, got 5,000"),
        ("~nobody-here/a", "cannot find the home folder"),
    ],
)
def test_paths_that_no_file_has_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        given_path(text)


def test_usual_paths_are_kept_and_the_home_folder_is_put_in():
    assert given_path("~/a") == Path.home() / "a"
    assert given_path("a/é") == Path("a/é")
    check_name("a b", "the name")


def test_what_cannot_be_looked_at_is_refused_and_not_missing(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert is_folder(tmp_path) and not is_folder(tmp_path / "nothing")
    with pytest.raises(InputError, match="loop.: Too many levels"):
        is_folder(tmp_path / "loop")


def test_folders_are_walked_in_order_through_links(tmp_path):
    for name in ("b/2.png", "b/1.png", "a/c/3.png", "a/x.txt"):
        (tmp_path / "top" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "top" / name).touch()
    (tmp_path / "top" / "z").symlink_to(tmp_path / "top" / "b")
    found = walked(tmp_path / "top", lambda name: name.endswith(".png"))
    names = {place.relative_to(tmp_path).as_posix(): files for place, files in found}
    assert names == {
        **{"top": [], "top/a": [], "top/a/c": ["3.png"]},
        **{"top/b": ["1.png", "2.png"], "top/z": ["1.png", "2.png"]},
    }
    assert list(names) == sorted(names)


def test_links_that_go_round_and_pipes_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "pipe.txt")
    assert len(list(walked(tmp_path, lambda name: name.endswith(".png")))) == 2
    with pytest.raises(InputError, match=r"file at .*pipe\.txt, got a pipe"):
        list(walked(tmp_path, lambda name: True))
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    with pytest.raises(InputError, match="round is a link to a folder above it"):
        list(walked(tmp_path, lambda name: name.endswith(".png")))
