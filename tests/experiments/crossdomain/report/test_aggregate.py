import json
from pathlib import Path
from typing import Any

import pytest
from written import edit, summary, written_run

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.crossdomain.report.aggregate import (
    compare,
    gather,
    read_run,
)
from l2l_evograd.experiments.folder import make_folder
from l2l_evograd.experiments.noisy_labels.settings import NoisyLabelSettings
from l2l_evograd.experiments.rotation.settings import RotationSettings
from l2l_evograd.experiments.sealed import previous, remove

ONE = {(0, "none"): [0.5, 0.7], (0, "lft-exact"): [0.6, 0.9]}


def test_a_run_is_read_with_what_is_missing(tmp_path):
    changes = {"methods": ("none", "lft-exact", "ft"), "seeds": 2}
    run = read_run(written_run(tmp_path, ONE, **changes))
    assert run.domains == ("cars", "cub", "mini") and run.device == "cpu"
    assert [figures["method"] for figures in run.results.runs] == ["none", "lft-exact"]
    assert run.missing == [(0, "ft"), (1, "none"), (1, "lft-exact"), (1, "ft")]


def test_the_same_folder_counts_once(tmp_path):
    written_run(tmp_path / "a", ONE)
    (run,) = gather([tmp_path / "a", tmp_path / "a" / ".." / "a"])
    assert run.folder == tmp_path / "a"


def test_a_folder_of_runs_stands_for_those_that_have_results(tmp_path):
    for name in ("cub", "cars", "later"):
        written_run(tmp_path / "all" / name, ONE, unseen=name)
    remove(tmp_path / "all" / "later" / "results.json")
    (tmp_path / "all" / "notes").mkdir()
    runs = gather([tmp_path / "all", tmp_path / "all" / "cub"])
    assert [run.folder.name for run in runs] == ["cars", "cub"]
    with pytest.raises(InputError, match="notes contains no run"):
        gather([tmp_path / "all" / "notes"])


def test_the_devices_and_machines_of_a_run_need_not_be_here(tmp_path):
    written_run(tmp_path, ONE, device="cuda:7", devices=8, nodes=4)
    run = read_run(tmp_path)
    assert run.device == "cuda" and run.identity()["nodes"] == 4


def test_unseen_domains_methods_and_seeds_come_together(tmp_path):
    folders = [
        written_run(tmp_path / "a", ONE),
        written_run(tmp_path / "b", {(1, "ft"): [0.1, 0.2]}, seed=1),
        written_run(tmp_path / "c", {(1, "none"): [0.3, 0.5]}, seed=1),
        written_run(tmp_path / "d", {(0, "none"): [0.8, 0.9]}, unseen="cars"),
    ]
    (comparison,) = compare(gather(folders))
    assert comparison.methods == ["none", "ft", "lft-exact"]
    assert list(comparison.rows) == ["cars", "cub"]
    assert comparison.complete and comparison.differing == {}
    cub = comparison.rows["cub"]
    assert cub["lft-exact"] == summary(folders[0])["lft-exact"]
    assert comparison.rows["cars"]["none"] == summary(folders[3])["none"]
    assert (cub["none"]["seeds"], cub["ft"]["seeds"]) == (2, 1)
    assert cub["none"]["accuracy"] == pytest.approx(0.5)
    # sd² of 0.5, 0.7, 0.3, 0.5 is 0.08/3
    assert cub["none"]["interval"] == pytest.approx(1.96 * (0.08 / 3) ** 0.5 / 2)


def test_a_domain_that_was_never_left_out_makes_it_incomplete(tmp_path):
    (comparison,) = compare(gather([written_run(tmp_path, ONE)]))
    assert not comparison.complete


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({"lr": 0.01}, [{"lr": 0.001}, {"lr": 0.01}]),
        ({"data": "photos"}, [{"data": None}, {"data": "photos"}]),
        ({"base": "cars"}, [{"base": "mini"}, {"base": "cars"}]),
        ({"shots": 1}, [{}, {}]),
        ({"iterations": 7}, [{}, {}]),
    ],
)
def test_runs_with_other_settings_are_kept_apart_and_the_settings_named(
    changes: dict[str, Any], differing: list[dict[str, Any]], tmp_path: Path
):
    folders = [
        written_run(tmp_path / "a", ONE),
        written_run(tmp_path / "b", ONE, **changes),
    ]
    comparisons = compare(gather(folders))
    assert [dict(each.differing) for each in comparisons] == differing
    assert [each.runs[0].folder for each in comparisons] == folders


def test_runs_on_another_kind_of_device_are_kept_apart(tmp_path):
    devices = {"a": "cpu", "b": "cuda"}
    folders = [
        written_run(tmp_path / name, ONE, device=device)
        for name, device in devices.items()
    ]
    first, second = compare(gather(folders))
    assert (first.differing, second.differing) == (
        {"device": "cpu"},
        {"device": "cuda"},
    )


def test_what_no_figure_depends_on_sets_nothing_apart(tmp_path):
    folders = [
        written_run(tmp_path / "a", ONE),
        written_run(tmp_path / "b", ONE, unseen="cars", save_every=7, workers=3),
    ]
    assert len(compare(gather(folders))) == 1


def test_the_same_seed_twice_is_refused(tmp_path):
    folders = [written_run(tmp_path / name, ONE) for name in "ab"]
    message = (
        "a and .*b contain the same results: none on 'cub' with seed 0 .* leave one"
    )
    with pytest.raises(InputError, match=message):
        compare(gather(folders))


@pytest.mark.parametrize("name", ["settings.json", "results.json"])
def test_a_folder_without_a_run_is_named(name: str, tmp_path: Path):
    folder = written_run(tmp_path / "a", ONE)
    remove(folder / name)
    with pytest.raises(InputError, match=f"a contains no .*{name} does not exist"):
        gather([folder])
    with pytest.raises(InputError, match="b contains no run"):
        gather([tmp_path / "b"])


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        ("noisy-labels", NoisyLabelSettings().to_dict()),
        ("rotation", RotationSettings().to_dict()),
        ("illustrate", {"trials": 100, "seed": 0}),
    ],
)
def test_runs_of_other_commands_are_refused(
    command: str, settings: dict[str, Any], tmp_path: Path
):
    make_folder(tmp_path, command, settings)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(InputError, match=f"of crossdomain, got settings of {command}"):
        read_run(tmp_path)


def test_settings_of_another_version_are_refused(tmp_path):
    written_run(tmp_path, ONE)
    edit(tmp_path / "settings.json", flavour="sweet")
    with pytest.raises(InputError, match="cannot read .*settings.json: .* flavour"):
        read_run(tmp_path)
    edit(tmp_path / "settings.json", ways="five")
    with pytest.raises(InputError, match="cannot read .*settings.json"):
        read_run(tmp_path)


def test_a_damaged_file_is_refused(tmp_path):
    written_run(tmp_path, ONE)
    whole = (tmp_path / "results.json").read_text()
    (tmp_path / "results.json").write_text(whole[:-20])
    with pytest.raises(InputError, match="is not JSON: .*; mend it with .* --resume"):
        read_run(tmp_path)  # the generation before has fewer results
    previous(tmp_path / "results.json").write_text(whole[:-20])
    with pytest.raises(InputError, match="results.json is not JSON"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"domains": None}, "seen domains in .* to be a list of names, got None"),
        ({"domains": {"seen": [1]}}, "domains in .* to be a list of names, got"),
        ({"runs": []}, "results.json has no results; leave"),
        ({"runs": {}}, "results.json to be a list of objects, got {}"),
        ({"runs": [7]}, r"results.json to be a list of objects, got \[7\]"),
    ],
)
def test_results_of_another_version_are_refused(
    changes: dict[str, Any], wrong: str, tmp_path: Path
):
    written_run(tmp_path, ONE)
    edit(tmp_path / "results.json", **changes)
    with pytest.raises(InputError, match=wrong):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [
        ("seed", None, "'seed' in entry 2 of .* kind 'number', got None"),
        ("method", "maml", "an entry for seed 0, method maml that is not of this"),
        ("accuracy", 0.5, "'accuracy' in entry 2 .* kind 'object', got 0.5"),
        ("accuracy", {}, "2 accuracies and their mean, got 2 and {}"),
        ("accuracies", [0.5], "2 accuracies and their mean, got 1 and"),
        ("accuracies", [0.5, "0.7"], "kind 'numbers', got"),
        ("seconds_per_iteration", None, "kind 'number', got None"),
        ("peak_memory_bytes", "much", "kind 'number', got 'much'"),
    ],
)
def test_an_entry_with_another_figure_is_refused(
    name: str, value: Any, wrong: str, tmp_path: Path
):
    written_run(tmp_path, ONE)
    runs = json.loads((tmp_path / "results.json").read_text())["runs"]
    runs[1][name] = value
    edit(tmp_path / "results.json", runs=runs)
    with pytest.raises(InputError, match=wrong):
        read_run(tmp_path)


def test_two_entries_of_the_same_are_refused(tmp_path):
    written_run(tmp_path, ONE)
    runs = json.loads((tmp_path / "results.json").read_text())["runs"]
    edit(tmp_path / "results.json", runs=[*runs, runs[0]])
    with pytest.raises(InputError, match="one entry for seed 0, method none in"):
        read_run(tmp_path)
