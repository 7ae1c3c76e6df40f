import dataclasses
import io
import json
import math

import pytest
from rich.console import Console

from benchmarks import accuracy
from benchmarks.accuracy import CONFIGS, Problem, main, measure
from l2l_evograd.noisy_labels.settings import NoisyLabelSettings

# Lightning asks newer releases of torch in a way that they deprecate.
pytestmark = pytest.mark.filterwarnings(r"ignore:.*isinstance\(treespec, LeafSpec\)")


def test_every_method_is_trained_twice_for_each_problem(tmp_path, capsys):
    out = tmp_path / "made" / "accuracy.json"
    picture = tmp_path / "accuracy.png"
    options = ["--config", "smoke", "--json", str(out), "--picture", str(picture)]
    main(options)
    records = json.loads(out.read_text())["records"]
    found = [(r["problem"], r["budget"], r["method"]) for r in records]
    assert found == [
        (problem, budget, method)
        for problem, methods in (
            ("noisy labels", ("baseline", "exact")),
            ("cross-domain", ("none", "lft-exact")),
        )
        for budget in ("equal iterations", "equal time")
        for method in methods
    ]
    for record in records:
        assert 0 <= record["accuracy"] <= 1
        product = record["iterations"] * record["seconds_per_iteration"]
        assert record["training_seconds"] == pytest.approx(product) and product > 0
    assert picture.stat().st_size > 10_000
    assert "equal time" in capsys.readouterr().out


def test_time_is_shared_out_by_the_seconds_of_the_slowest(monkeypatch):
    """A stand-in for training whose times and accuracies are known."""
    asked = []

    def run(settings, out, lenders):
        asked.append((settings.methods, settings.iterations, out.name))
        seconds = {"baseline": 0.1, "exact": 0.4}
        return [
            {
                "method": method,
                "seed": seed,
                "last": settings.iterations / 100 + seed / 10,
                "seconds_per_iteration": seconds[method],
            }
            for seed in range(2)
            for method in settings.methods
        ]

    def make(config):
        settings = NoisyLabelSettings(methods=("baseline", "exact"), iterations=10)
        return Problem("known", settings, run, lambda found: found["last"], "exact")

    monkeypatch.setattr(accuracy, "noisy_labels", make)
    monkeypatch.setattr(accuracy, "cross_domain", make)
    config = dataclasses.replace(CONFIGS["smoke"], seeds=2)
    records = measure(config, Console(file=io.StringIO()))[:4]
    assert asked[:3] == [
        (("baseline", "exact"), 10, "equal"),
        (("baseline",), 40, "baseline"),
        (("exact",), 10, "exact"),
    ]
    assert [r["iterations"] for r in records] == [10, 10, 40, 10]
    assert [r["training_seconds"] for r in records] == [1, 4, 4, 4]
    assert [r["accuracy"] for r in records] == pytest.approx([0.15, 0.15, 0.45, 0.15])
    error = math.sqrt(0.005 / 2)  # two values 0.1 apart: variance 0.005
    assert records[0]["accuracy_error"] == pytest.approx(error)
    assert records[3]["gain"] == pytest.approx(-0.3)
    assert records[3]["gain_error"] == pytest.approx(0, abs=1e-12)
