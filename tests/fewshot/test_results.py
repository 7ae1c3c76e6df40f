import json
from pathlib import Path

import pytest
from tiny import tiny_settings

from l2l_evograd.fewshot import results
from l2l_evograd.fewshot.results import (
    Results,
    check_out,
    clear,
    read_settings,
    write_json,
    write_whole,
)


def run(seed: int, method: str, accuracies: list[float]) -> dict[str, object]:
    return {
        "seed": seed,
        "method": method,
        "accuracies": accuracies,
        "accuracy": {"mean": sum(accuracies) / len(accuracies)},
        "seconds_per_iteration": 1.0 + seed,
        "peak_memory_bytes": 100 + seed,
    }


def filled(out: Path, *runs: dict[str, object]) -> Results:
    found = Results(out, tiny_settings(methods=("none", "ft"), seeds=2), {})
    for one in runs:
        found.add(one)
    return found


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


def test_what_was_found_is_read_again(tmp_path):
    filled(tmp_path, run(0, "none", [0.5, 0.7]))
    again = filled(tmp_path)
    assert again.has(0, "none") and not again.has(1, "none")
    content = json.loads((tmp_path / "results.json").read_text())
    assert set(content["versions"]) == {
        "python",
        "torch",
        "learn2learn",
        "pytorch-lightning",
        "l2l_evograd",
    }


def test_the_summary_goes_over_episodes_and_over_seeds(tmp_path):
    found = filled(
        tmp_path,
        run(0, "none", [0.2, 0.4]),
        run(0, "ft", [0.3, 0.6]),
        run(1, "none", [0.6, 0.8]),
        run(1, "ft", [0.6, 0.9]),
    )
    none, ft = found.summary()
    assert none["accuracy"] == pytest.approx(0.5)
    # sd² of 0.2, 0.4, 0.6, 0.8 is 0.2/3
    assert none["interval"] == pytest.approx(1.96 * (0.2 / 3) ** 0.5 / 2)
    assert (none["seed_mean"], none["seed_sd"]) == pytest.approx((0.5, 0.4 / 2**0.5))
    assert none["gain"] is None
    # paired: 0.1, 0.2, 0, 0.1
    assert ft["gain"] == pytest.approx(0.1)
    assert ft["gain_interval"] == pytest.approx(1.96 * (0.02 / 3) ** 0.5 / 2)
    assert ft["gain_sd"] == pytest.approx(0.1 / 2**0.5)
    assert (ft["seconds_per_iteration"], ft["peak_memory_bytes"]) == (1.5, 101)


def test_one_seed_has_no_spread_and_a_missing_method_no_row(tmp_path):
    (row,) = filled(tmp_path, run(0, "ft", [0.5, 0.7])).summary()
    assert (row["method"], row["seed_sd"], row["gain"]) == ("ft", 0.0, None)


def test_a_new_folder_below_a_missing_one_will_do(tmp_path):
    check_out(tmp_path / "a" / "b", resume=False, overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(ValueError, match="--out to be a folder, but .*a is a file"):
        check_out(tmp_path / "a", resume=False, overwrite=False)
    with pytest.raises(ValueError, match="cannot make the folder .*: .*a is a file"):
        check_out(tmp_path / "a" / "b", resume=False, overwrite=False)


def test_a_folder_that_is_read_only_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(results.os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="cannot write to .*; choose another"):
        check_out(tmp_path / "new", resume=False, overwrite=False)


def test_there_has_to_be_a_run_to_go_on_with(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing to go on with: .*settings"):
        check_out(tmp_path, resume=True, overwrite=False)


def test_a_run_is_not_replaced_unasked(tmp_path):
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(ValueError, match="holds a run already; go on with it"):
        check_out(tmp_path, resume=False, overwrite=False)
    check_out(tmp_path, resume=True, overwrite=False)
    check_out(tmp_path, resume=False, overwrite=True)


def test_files_of_unknown_origin_are_not_touched(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for overwrite in (True, False):
        with pytest.raises(ValueError, match="holds checkpoints, but no settings.json"):
            check_out(tmp_path, resume=False, overwrite=overwrite)
    clear(tmp_path)
    assert (tmp_path / "checkpoints").exists()


def test_clearing_removes_what_a_run_wrote_and_nothing_else(tmp_path):
    for name in ("settings.json", "results.json", "accuracy.png", "mine.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "logs").mkdir()
    clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_settings_that_are_no_json_are_refused(tmp_path):
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(ValueError, match=r"settings.json is no JSON"):
        read_settings(tmp_path)
    (tmp_path / "settings.json").write_text("[]")
    with pytest.raises(ValueError, match=r"settings.json to hold an object"):
        read_settings(tmp_path)
