import os

import pytest

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.folder import check_out, make_folder, read_settings

WRITTEN = ["settings.json", "settings.previous.json"]


def test_a_new_folder_below_a_missing_one_will_do(tmp_path):
    check_out(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(ValueError, match="--out to be a folder, but .*a is a file"):
        check_out(tmp_path / "a")
    with pytest.raises(ValueError, match="cannot make the folder .*: .*a is a file"):
        check_out(tmp_path / "a" / "b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only_is_refused(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(InputError, match="cannot write to .*; choose another"):
        check_out(tmp_path / "new")


def test_there_has_to_be_a_run_to_go_on_with(tmp_path):
    with pytest.raises(InputError, match="no run to resume: .*settings"):
        check_out(tmp_path, resume=True)


def test_a_run_is_not_replaced_unasked(tmp_path):
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(ValueError, match="already contains a run; resume it"):
        check_out(tmp_path)
    check_out(tmp_path, resume=True)
    check_out(tmp_path, overwrite=True)


def test_files_of_unknown_origin_are_not_touched(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for overwrite in (True, False):
        with pytest.raises(
            ValueError, match="contains checkpoints, but no settings.json"
        ):
            check_out(tmp_path, overwrite=overwrite)
    assert (tmp_path / "checkpoints").exists()


def test_clearing_removes_what_a_run_wrote_and_nothing_else(tmp_path):
    for name in ("settings.json", "results.json", "accuracy.png", "mine.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "logs").mkdir()
    make_folder(tmp_path, "rotation", {})
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["mine.txt", *WRITTEN]


def test_a_picture_of_unknown_origin_is_named(tmp_path):
    (tmp_path / "accuracy.png").write_text("")
    with pytest.raises(ValueError, match="contains accuracy.png, but no settings.json"):
        check_out(tmp_path)


def test_what_cannot_be_gone_on_with_is_not_offered(tmp_path):
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(ValueError, match="already contains a run; replace it"):
        check_out(tmp_path, resumable=False)


def test_a_run_that_goes_on_keeps_its_files_and_a_new_one_does_not(tmp_path):
    out = tmp_path / "a" / "b"
    make_folder(out, "rotation", {"ways": 2})
    (out / "accuracy.png").write_text("")
    make_folder(out, "rotation", {"ways": 3}, resume=True)
    assert (out / "accuracy.png").exists()
    assert read_settings(out) == ("rotation", {"ways": 3})
    make_folder(out, "rotation", {"ways": 4})
    assert sorted(path.name for path in out.iterdir()) == WRITTEN
    assert read_settings(out) == ("rotation", {"ways": 4})
