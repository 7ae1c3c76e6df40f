import io
import json

import pytest
import torch
from noisy import tiny_experiment, tiny_source
from rich.console import Console

from l2l_evograd.experiments.noisy_labels.methods import METHODS
from l2l_evograd.experiments.noisy_labels.module import NoisyLabelModule
from l2l_evograd.experiments.noisy_labels.pictures import (
    draw_accuracy,
    draw_samples,
    draw_weights,
)
from l2l_evograd.experiments.noisy_labels.report import results_table
from l2l_evograd.experiments.noisy_labels.results import CURVE_LOSSES, TABLE_LOSSES

COSTS = ("seconds_per_iteration", "peak_memory_bytes")


def without_costs(runs):
    return [{k: v for k, v in run.items() if k not in COSTS} for run in runs]


def test_a_run_keeps_the_figures_of_every_method_and_seed(tmp_path):
    experiment = tiny_experiment(tmp_path, methods=tuple(METHODS), seeds=2)
    results = experiment.run()
    kept = [(run["seed"], run["method"]) for run in results.runs]
    assert kept == [(seed, method) for seed in (0, 1) for method in METHODS]
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["runs"] == results.runs
    assert content["data"]["train"] == 52 and content["data"]["meta"] == 8
    for run in results.runs:
        assert run["last"] == run["curve"][-1]["accuracy"] <= run["best"] <= 1
        assert run["seconds_per_iteration"] > 0
        if METHODS[run["method"]].uses_lambda:
            assert len(run["weights_after"]) == len(CURVE_LOSSES)
            counts = [len(run["samples"][kind]) for kind in ("clean", "corrupted")]
            assert sum(counts) == 52 and min(counts) > 0
        else:
            assert run["weights_after"] is run["samples"] is None
        if not METHODS[run["method"]].learned:
            assert run["weights_after"] == run["weights_before"]
            assert run["hypergradient_norm"] is None
        else:
            assert run["weights_after"] != run["weights_before"]
            assert run["hypergradient_norm"] > 0


def test_what_is_in_the_table_and_the_pictures(tmp_path):
    results = tiny_experiment(tmp_path, seeds=2, iterations=3).run()
    rows = results.summary()
    assert [row["method"] for row in rows] == ["frozen", "guided"]
    assert rows[0]["moved"] == 0 < rows[1]["moved"]
    assert rows[0]["gain"] is None
    last = [[run["last"] for run in results.of(m)] for m in ("guided", "frozen")]
    gains = [own - other for own, other in zip(*last, strict=True)]
    assert rows[1]["gain"] == pytest.approx(sum(gains) / 2)
    assert rows[1]["gain_error"] == pytest.approx(abs(gains[0] - gains[1]) / 2)
    runs = results.of("guided")
    place = CURVE_LOSSES.index(TABLE_LOSSES[1])
    mean = sum(run["weights_after"][place] for run in runs) / 2
    assert rows[1]["v"][1] == pytest.approx(mean)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(results_table(rows, "a title"))
    text = console.export_text()
    for part in ("a title", "frozen", "guided", "MiB", "before training", "± "):
        assert part in text
    for draw in (draw_weights, draw_samples):
        path = tmp_path / f"{draw.__name__}.png"
        draw(results, path)
        assert path.stat().st_size > 5000
    draw_accuracy(results, 5.2, "a title", tmp_path / "accuracy.png")
    assert (tmp_path / "accuracy.png").stat().st_size > 5000


def test_weights_of_samples_are_counted_by_the_truth_of_the_labels(tmp_path):
    experiment = tiny_experiment(
        tmp_path, methods=("baseline", "exact"), weighting="samples", iterations=10
    )
    results = experiment.run()
    baseline, exact = results.runs
    assert baseline["samples"] is baseline["wrong_share"] is None
    assert exact["weights_after"] is None
    samples, start = exact["samples"], experiment.start(0)
    assert {k: len(v) for k, v in samples.items()} == {
        "clean": int((~start.split.corrupted).sum()),
        "corrupted": int(start.split.corrupted.sum()),
    }
    total = sum(samples["clean"]) + sum(samples["corrupted"])
    assert exact["wrong_share"] == pytest.approx(sum(samples["corrupted"]) / total)
    experiment.draw(results)
    assert (tmp_path / "samples.png").stat().st_size > 5000
    assert not (tmp_path / "weights.png").exists()  # there is no net
    wrong = start.split.corrupted.double().mean()
    assert exact["wrong_labels"] == pytest.approx(float(wrong))
    table = Console(width=100, record=True, file=io.StringIO())
    table.print(experiment.table(results.summary()))
    assert f"{exact['wrong_share']:.0%}" in table.export_text()
    assert experiment.conclusions(results) == [
        "Accuracy after the last iteration; baseline is the best method without "
        "learning:",
        f"exact against baseline: {100 * (exact['last'] - baseline['last']):+.1f} "
        "points over 1 seed: nothing can be said about other seeds; use at least 3.",
    ]


def test_learned_methods_are_held_against_the_best_control(tmp_path):
    experiment = tiny_experiment(
        tmp_path, methods=("baseline", "random", "frozen", "guided"), iterations=1
    )
    results = experiment.run()
    for run, last in zip(results.runs, (0.3, 0.2, 0.4, 0.5), strict=True):
        run["last"] = last
    results.write()
    title, *lines = experiment.conclusions(results)
    assert "frozen is the best method without learning" in title
    assert [line.split(" points")[0] for line in lines] == [
        "random against baseline: -10.0",
        "frozen against baseline: +10.0",
        "guided against frozen: +10.0",
    ]


def test_a_weight_of_almost_one_is_not_shown_as_none():
    row = {
        **{"method": "guided", "seeds": 1, "best": 0.5, "best_sd": 0.0, "last": 0.5},
        **{"last_sd": 0.0, "seconds_per_iteration": 0.1, "peak_memory_bytes": 1},
        **{"gain": None, "gain_error": None, "wrong_share": None, "wrong_labels": 0.4},
        **{"v_start": [0.5, 0.5, 0.5], "v": [0.00001, 0.25, 0.99999]},
    }
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(results_table([row], "a title"))
    assert ".000/.250/1.000" in console.export_text()


def test_without_weights_or_wrong_labels_there_is_less_to_draw(tmp_path):
    for method, rate in (("baseline", 0.4), ("frozen", 0.0)):
        out = tmp_path / method
        results = tiny_experiment(
            out, methods=(method,), noise_rate=rate, iterations=2
        ).run()
        draw_weights(results, out / "weights.png")
        draw_samples(results, out / "samples.png")
        assert (out / "samples.png").exists()
        results_table(results.summary(), "a title")


def test_an_interrupted_run_goes_on_to_the_same_figures(tmp_path, monkeypatch):
    whole = tiny_experiment(tmp_path / "whole").run()
    iterate = NoisyLabelModule.iterate

    def stopping(self: NoisyLabelModule, iteration: int) -> float:
        if self.method.name == "guided" and iteration == 4:
            raise KeyboardInterrupt
        return iterate(self, iteration)

    monkeypatch.setattr(NoisyLabelModule, "iterate", stopping)
    with pytest.raises(KeyboardInterrupt):
        tiny_experiment(tmp_path / "parts").run()
    monkeypatch.undo()
    rest = tiny_experiment(tmp_path / "parts").run(resume=True)
    assert without_costs(rest.runs) == without_costs(whole.runs)


def test_a_run_that_is_replaced_leaves_nothing(tmp_path):
    tiny_experiment(tmp_path, iterations=2).run()
    (tmp_path / "weights.png").write_text("")
    again = tiny_experiment(tmp_path, iterations=2, methods=("frozen",)).run()
    assert len(again.runs) == 1
    assert not (tmp_path / "weights.png").exists()


def test_the_images_of_the_meta_set_are_not_trained_on(tmp_path):
    experiment = tiny_experiment(tmp_path)
    images = tiny_source().train.images
    for seed in range(20):
        split = experiment.split(seed)
        own = {image.numpy().tobytes() for image in images[split.train]}
        assert not own & {image.numpy().tobytes() for image in images[split.meta]}


def test_fewer_test_images_are_the_same_for_every_seed(tmp_path):
    experiment = tiny_experiment(tmp_path, test_images=7, seed=3)
    other = tiny_experiment(tmp_path, test_images=7)
    assert len(experiment._test_set) == 7
    assert torch.equal(experiment._test_set.images, other._test_set.images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"meta_images": 6}, "a multiple of the 4 classes, got 6"),
        ({"meta_images": 60}, "must leave images for training"),
        ({"train_images": 53}, "train on 1 to 52 images"),
        ({"test_images": 21}, "test on 1 to 20 images, got 21"),
        ({"warm_up": 7}, "a warm_up of less than the 7 iterations of a method, got 7"),
        ({"network": "wrn28-10", "width": 2}, "of 1 for wrn28-10"),
    ],
)
def test_bad_input_shows_before_anything_is_written(changes, message: str, tmp_path):
    with pytest.raises(ValueError, match=message):
        tiny_experiment(tmp_path / "run", **changes)
    assert list(tmp_path.iterdir()) == []
