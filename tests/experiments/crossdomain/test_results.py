import json
from pathlib import Path

import pytest
from tiny import tiny_settings

from l2l_evograd.experiments.crossdomain.results import CrossDomainResults

SETTINGS = tiny_settings(methods=("none", "ft"), seeds=2, episodes=2)


def run(seed: int, method: str, accuracies: list[float]) -> dict[str, object]:
    return {
        "seed": seed,
        "method": method,
        "accuracies": accuracies,
        "accuracy": {"mean": sum(accuracies) / len(accuracies)},
        "seconds_per_iteration": 1.0 + seed,
        "peak_memory_bytes": 100 + seed,
    }


def filled(out: Path, *runs: dict[str, object]) -> CrossDomainResults:
    found = CrossDomainResults(out, SETTINGS, {})
    for one in runs:
        found.add(one)
    return found


def test_what_was_found_is_read_again(tmp_path):
    filled(tmp_path, run(0, "none", [0.5, 0.7]))
    again = filled(tmp_path)
    assert again.has(0, "none") and not again.has(1, "none")
    content = json.loads((tmp_path / "results.json").read_text())
    optional = {"dehb", "ConfigSpace", "optuna"}
    assert set(content["versions"]) - optional == {
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
