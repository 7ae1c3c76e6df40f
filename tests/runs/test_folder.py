import json
from pathlib import Path

import pytest

from l2l_evograd.runs import folder
from l2l_evograd.runs.folder import (
    check_out,
    clear,
    make_folder,
    read_object,
    write_json,
    write_whole,
)

PICTURES = ("own.png",)


def test_a_file_is_whole_or_not_there(tmp_path):
    def failing(place: Path) -> None:
        place.write_text("half")
        raise KeyError

    path = tmp_path / "a.png"
    with pytest.raises(KeyError):
        write_whole(path, failing)
    assert list(tmp_path.iterdir()) == []
    write_whole(path, lambda place: place.write_text("whole") and None)
    assert path.read_text() == "whole"


def test_an_old_file_stays_if_the_new_one_fails(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}


def test_a_new_folder_below_a_missing_one_will_do(tmp_path):
    check_out(tmp_path / "a" / "b", PICTURES)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(ValueError, match="--out to be a folder, but .*a is a file"):
        check_out(tmp_path / "a", PICTURES)
    with pytest.raises(ValueError, match="cannot make the folder .*: .*a is a file"):
        check_out(tmp_path / "a" / "b", PICTURES)


def test_a_folder_that_is_read_only_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(folder.os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="cannot write to .*; choose another"):
        check_out(tmp_path / "new", PICTURES)


def test_there_has_to_be_a_run_to_go_on_with(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing to go on with: .*settings"):
        check_out(tmp_path, PICTURES, resume=True)


def test_a_run_is_not_replaced_unasked(tmp_path):
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(ValueError, match="holds a run already; go on with it"):
        check_out(tmp_path, PICTURES)
    check_out(tmp_path, PICTURES, resume=True)
    check_out(tmp_path, PICTURES, overwrite=True)


def test_files_of_unknown_origin_are_not_touched(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for overwrite in (True, False):
        with pytest.raises(ValueError, match="holds checkpoints, but no settings.json"):
            check_out(tmp_path, PICTURES, overwrite=overwrite)
    clear(tmp_path, PICTURES)
    assert (tmp_path / "checkpoints").exists()


def test_clearing_removes_what_a_run_wrote_and_nothing_else(tmp_path):
    for name in ("settings.json", "results.json", "own.png", "mine.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "logs").mkdir()
    clear(tmp_path, PICTURES)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_picture_of_unknown_origin_is_named(tmp_path):
    (tmp_path / "own.png").write_text("")
    with pytest.raises(ValueError, match="holds own.png, but no settings.json"):
        check_out(tmp_path, PICTURES)
    check_out(tmp_path, ("another.png",))


def test_what_cannot_be_gone_on_with_is_not_offered(tmp_path):
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(ValueError, match="holds a run already; replace it"):
        check_out(tmp_path, PICTURES, resumable=False)


def test_a_run_that_goes_on_keeps_its_files_and_a_new_one_does_not(tmp_path):
    out = tmp_path / "a" / "b"
    make_folder(out, {"ways": 2}, PICTURES)
    (out / "own.png").write_text("")
    make_folder(out, {"ways": 3}, PICTURES, resume=True)
    assert (out / "own.png").exists()
    assert read_object(out / "settings.json") == {"ways": 3}
    make_folder(out, {"ways": 4}, PICTURES)
    assert [path.name for path in out.iterdir()] == ["settings.json"]
    assert read_object(out / "settings.json") == {"ways": 4}


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "a.json is no JSON"), ("[]", "a.json to hold an object")],
)
def test_a_file_that_holds_no_object_is_refused(text: str, message: str, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_object(tmp_path / "a.json")
