"""The last lines of a run, and the mean over several unseen domains."""

from typing import Any

import pytest
from consoles import silent_console

from l2l_evograd.experiments.crossdomain.report.conclusions import (
    averaged,
    comparisons,
    conclusions,
    domains_table,
    movements,
)

METHODS = ("none", "ft", "lft-guided")


def run(seed: int, method: str, mean: float, **more: Any) -> dict[str, Any]:
    return {"seed": seed, "method": method, "accuracy": {"mean": mean}, **more}


def runs_of(**accuracies: list[float]) -> list[dict[str, Any]]:
    return [
        run(seed, method.replace("_", "-"), mean)
        for method, means in accuracies.items()
        for seed, mean in enumerate(means)
    ]


def point(iteration: int, *layers: tuple[float, float]) -> dict[str, Any]:
    named = {f"layer {n}": {"gamma": g, "beta": b} for n, (g, b) in enumerate(layers)}
    return {"iteration": iteration, "layers": named}


def test_methods_are_compared_with_the_first_and_learned_ones_with_fixed_noise():
    runs = runs_of(
        none=[0.5, 0.6, 0.7], ft=[0.6, 0.71, 0.79], lft_guided=[0.61, 0.69, 0.8]
    )
    first, second, third = comparisons(runs, METHODS)
    assert first.startswith("Over 3 seeds, ft is 10.0 ± 0.6 points above none")
    assert second.startswith("Over 3 seeds, lft-guided is 10.0 ±")
    assert third == (
        "lft-guided against ft: +0.0 ± 1.0 points over 3 seeds: not shown."
    )


def test_only_seeds_that_both_methods_have_are_compared():
    runs = runs_of(none=[0.5, 0.6], ft=[0.6, 0.6])
    runs = [*runs[1:], run(7, "ft", 0.9)]  # "none" lacks seeds 0 and 7
    (line,) = comparisons(runs, METHODS)
    assert line.startswith("ft against none: +0.0 points over 1 seed")
    assert comparisons(runs_of(none=[0.5]), METHODS) == []


def test_without_a_baseline_fixed_noise_is_compared_once():
    (line,) = comparisons(runs_of(ft=[0.5], lft_guided=[0.6]), ("ft", "lft-guided"))
    assert line.startswith("lft-guided against ft: +10.0 points")


def test_how_far_the_strengths_moved():
    fixed = [point(0, (0.3, 0.5)), point(9, (0.3, 0.5))]
    two_layers = [
        point(0, (0.3, 0.5), (0.3, 0.5)),
        point(9, (0.2, 0.6), (0.4, 0.4)),
    ]
    one_layer = [point(0, (0.3, 0.5)), point(4, (9.0, 9.0)), point(9, (0.1, 0.9))]
    runs = [
        run(0, "ft", 0.5, strengths=fixed, movement_mean=0.0),
        run(0, "lft-guided", 0.5, strengths=two_layers, movement_mean=0.1),
        run(1, "lft-guided", 0.5, strengths=one_layer, movement_mean=0.3),
    ]
    assert movements(runs, METHODS) == [
        "λ of lft-guided: mean scale γ 0.300 → 0.200, mean shift β 0.500 → 0.700; a "
        "single parameter moved by 0.200 on average."
    ]
    assert conclusions(runs, METHODS)[-1] == movements(runs, METHODS)[0]


def test_the_mean_over_domains_is_taken_seed_by_seed():
    several = {
        "sketch": runs_of(none=[0.2, 0.4], ft=[0.4, 0.4]),
        "print": runs_of(none=[0.6, 0.4], ft=[0.8]),  # seed 1 of ft is missing
    }
    found = averaged(several)
    assert [(each["method"], each["seed"]) for each in found] == [
        ("none", 0),
        ("none", 1),
        ("ft", 0),
    ]
    means = [each["accuracy"]["mean"] for each in found]
    assert means == pytest.approx([0.4, 0.4, 0.6])


def test_the_table_has_a_column_for_every_domain_and_their_mean():
    several = {
        "sketch": runs_of(none=[0.2, 0.4], ft=[0.4, 0.4]),
        "print": runs_of(none=[0.6, 0.4]),
    }
    console = silent_console()
    console.width = 100
    console.print(domains_table(several, ("none", "ft")))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    none, ft = (
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in text.splitlines()
        if line.startswith("│")
    )
    assert none == ["none", "30.0 ± 14.1 %", "50.0 ± 14.1 %", "40.0 ± 0.0 %"]
    assert ft == ["ft", "40.0 ± 0.0 %", "", ""]
