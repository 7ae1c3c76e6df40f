import dataclasses
import math
from functools import cache
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmarks.fidelity import CONFIGS, main, measure, measured
from benchmarks.fidelity_estimates import (
    ALGORITHM_1,
    PEERS,
    POPULATIONS,
    REFERENCE,
    STEP_LENGTHS,
    estimate,
)
from benchmarks.fidelity_pictures import draw
from benchmarks.fidelity_problems import CPU, Source, smoothed, train_source
from benchmarks.fidelity_records import (
    FailedMethod,
    FidelityRecord,
    Tally,
    ratio_of_means,
    table,
)
from benchmarks.methods import METHODS, PLAIN_STEP, ours
from benchmarks.problems import Bilevel
from l2l_evograd.checks import InputError
from l2l_evograd.experiments.crossdomain.networks.backbones import make_backbone
from l2l_evograd.oracle.fidelity import fidelity, flat

SMOKE = CONFIGS["smoke"]
PROBLEMS = {problem.name: problem for problem in SMOKE.problems}
SMOOTH, NOISY = PROBLEMS


@cache
def records() -> list[FidelityRecord | FailedMethod]:
    return measure(SMOKE)


@cache
def source(name: str) -> Source:
    return train_source(PROBLEMS[name])


def found(name: str, method: str, batch: int = 0, draw: int = 0) -> torch.Tensor:
    call = {**METHODS, **PEERS}[method]
    return flat(estimate(method, call, source(name), batch, draw)[0])


def record_of(problem: str, method: str) -> FidelityRecord:
    (record,) = (r for r in records() if (r.problem, r.method) == (problem, method))
    assert isinstance(record, FidelityRecord)
    return record


def test_every_method_has_a_record() -> None:
    for problem in SMOKE.problems:
        expected = {*METHODS, *PEERS} - {PLAIN_STEP, *problem.left_out}
        own = [r for r in records() if r.problem == problem.name]
        assert sorted(r.method for r in own) == sorted(expected)
        for record in own:
            assert isinstance(record, FidelityRecord)
            assert record.seconds > 0 and math.isfinite(record.bias)
            assert [d.delta for d in record.descents] == list(problem.deltas)


def test_a_library_that_fails_has_a_record_of_its_error(tmp_path: Path) -> None:
    def broken(problem: Bilevel) -> list[torch.Tensor]:
        raise RuntimeError("no such derivative")

    others = tuple(name for name in METHODS if name not in (PLAIN_STEP, REFERENCE))
    problem = dataclasses.replace(PROBLEMS[SMOOTH], left_out=others)
    exact, failed = measured(problem, 2, CPU, peers={"broken": broken})
    assert exact.method == REFERENCE
    assert failed == FailedMethod(SMOOTH, "broken", "RuntimeError: no such derivative")
    console = Console(width=140)
    with console.capture() as capture:
        console.print(table([exact, failed]))
    assert "broken fails: RuntimeError: no such derivative" in capture.get()
    draw([dataclasses.asdict(r) for r in (exact, failed)], tmp_path / "one.png")


@pytest.mark.parametrize("name", PROBLEMS)
def test_exact_agrees_with_higher(name: str) -> None:
    exact, reference = found(name, "exact"), found(name, REFERENCE)
    torch.testing.assert_close(exact, reference, rtol=1e-9, atol=1e-12)
    assert float(reference.norm()) > 1e-6
    descents = record_of(name, "exact").descents
    assert descents[0].ratio is not None
    assert descents[0].ratio.value == pytest.approx(1, abs=1e-6)


def test_guided_is_near_exact_on_a_smooth_network() -> None:
    record = record_of(SMOOTH, "guided, central")
    assert record.cosine.value >= 0.999
    assert record.descents[0].ratio is not None
    assert record.descents[0].ratio.value >= 0.999


def test_single_draws_of_evograd_are_mostly_noise() -> None:
    name = "evograd, K = 2"
    draws = [found(SMOOTH, name, draw=draw) for draw in range(20)]
    exact = found(SMOOTH, REFERENCE)
    assert fidelity(torch.stack(draws), exact, random=True).noise > 1
    assert record_of(SMOOTH, name).noise > 0
    assert record_of(SMOOTH, "guided, central").noise == 0


@pytest.mark.parametrize("name", POPULATIONS)
def test_populations_are_the_shared_methods(name: str) -> None:
    problems = [source(SMOOTH)(0) for _ in range(2)]
    seed = 5
    torch.manual_seed(seed)
    shared = METHODS[name](problems[0])
    estimator, update = POPULATIONS[name]
    generator = torch.Generator().manual_seed(seed)
    own = ours(estimator, update, generator=generator)(problems[1])
    for a, b in zip(shared, own, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


def test_draws_differ_in_their_perturbations_alone() -> None:
    name = "evograd, K = 2"
    first, again = found(NOISY, name), found(NOISY, name)
    assert torch.equal(first, again)
    assert not torch.allclose(first, found(NOISY, name, draw=1))
    exact = found(NOISY, "exact")
    assert torch.equal(exact, found(NOISY, "exact", draw=1))
    assert not torch.allclose(exact, found(NOISY, "exact", batch=1))


def test_algorithm_1_is_scaled_to_the_rate_of_the_others() -> None:
    exact = found(SMOOTH, REFERENCE)
    draws = [found(SMOOTH, "Algorithm 1", draw=draw) for draw in range(100)]
    projection = fidelity(torch.stack(draws), exact, random=True).projection
    assert projection.error < 1
    assert abs(projection.value - 1) < 4 * projection.error
    assert ALGORITHM_1.learning_rate == pytest.approx(1e-5)


def test_ratio_of_means() -> None:
    reference = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    twice = ratio_of_means(2 * reference, reference)
    assert twice is not None and (twice.value, twice.error) == (2.0, 0.0)
    constant = torch.full((3,), 2.0, dtype=torch.float64)
    plain = ratio_of_means(reference, constant)
    assert plain is not None and plain.value == pytest.approx(1.5)
    spread = math.sqrt((2**2 + 1 + 3**2) / 2)
    assert plain.error == pytest.approx(spread / math.sqrt(3) / 2)
    assert ratio_of_means(reference, -reference) is None


def test_squared_bias_is_free_of_the_noise_of_few_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    exact = torch.zeros(4, dtype=torch.float64)
    exact[0] = 2.0
    tally = Tally()
    for _ in range(2000):
        noise = torch.randn(2, 4, generator=generator, dtype=torch.float64)
        tally.fidelities.append(fidelity(1.5 * exact + noise, exact, random=True))
        tally.drops.append(torch.ones(2, 1, dtype=torch.float64))
        tally.seconds.append(3.0)
    record = tally.record("p", "m", 1.0, (0.1,), tally, step=1.5)
    # ‖1.5 g − g‖/‖g‖ and √4/‖g‖
    assert record.bias == pytest.approx(0.5, abs=0.05)
    assert record.noise == pytest.approx(1.0, abs=0.05)
    # ‖m − g‖² of a batch has variance 4, and the noise subtracted from it variance 2.
    assert record.squared_bias.error == pytest.approx(6**0.5 / 4 / 2000**0.5, rel=0.1)
    assert record.relative_seconds == 2.0
    assert record.descents[0].downhill == 1.0


def test_step_lengths_are_measured_in_place_of_the_usual_methods() -> None:
    config = dataclasses.replace(SMOKE, problems=(PROBLEMS[SMOOTH],), step_lengths=True)
    calls: list[int] = []
    found = measure(config, after=lambda records: calls.append(len(records)))
    assert [record.method for record in found] == [REFERENCE, *STEP_LENGTHS]
    assert calls == [len(found)]
    errors = {
        record.method: abs(1 - record.cosine.value)
        for record in found
        if isinstance(record, FidelityRecord)
    }
    # On a smooth network, a shorter step comes closer, and the central scheme closest.
    assert errors["guided, central, h = 0.003"] < errors["guided, central, h = 0.3"]
    assert errors["guided, central, h = 0.3"] < errors["guided, forward, h = 0.3"]
    assert [type(p).__name__ for p in CONFIGS["step-lengths"].problems] == [
        "Transforms",
        "SampleWeights",
        "SampleWeights",
        "Transforms",
    ]


def test_smoothed_networks_have_no_kinks() -> None:
    network = smoothed(make_backbone("resnet10", 16, feature_transforms=True))
    kinds = {type(module) for module in network.modules()}
    assert torch.nn.Softplus in kinds and torch.nn.AvgPool2d in kinds
    assert not kinds & {torch.nn.ReLU, torch.nn.MaxPool2d}


def test_table_and_picture_show_every_method(tmp_path: Path) -> None:
    own = [r for r in records() if r.problem == NOISY]
    console = Console(width=140)
    with console.capture() as capture:
        console.print(table(own))
    assert all(record.method in capture.get() for record in own)
    path = tmp_path / "fidelity.png"
    draw([dataclasses.asdict(record) for record in records()], path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_an_unknown_problem_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--config", "smoke", "--problem", "rotation"])
    assert "name of a problem, got 'rotation'" in capsys.readouterr().err


def test_too_few_batches_are_refused() -> None:
    with pytest.raises(InputError, match="batches to be a whole number of at least 2"):
        dataclasses.replace(SMOKE, batches=1)
    single = dataclasses.replace(PROBLEMS[SMOOTH], draws=1)
    with pytest.raises(InputError, match="draws of sample weights.*at least 2"):
        dataclasses.replace(SMOKE, problems=(single,))
