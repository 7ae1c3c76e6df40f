import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from benchmarks.measuring import imports_frozen
from benchmarks.overhead import (
    CONFIGS,
    DIFFERENCE,
    ESTIMATORS,
    EXACT,
    Case,
    calls_in,
    cases,
    compared,
    main,
    measure_case,
    print_records,
)
from benchmarks.overhead_methods import (
    BY_HAND,
    LEARN2LEARN,
    LEARNER,
    hypergradient_methods,
)
from benchmarks.overhead_tasks import make_task
from l2l_evograd import EvoGrad, Exact

SMOKE = CONFIGS["smoke"]
FAMILIES = {EXACT: LEARN2LEARN, DIFFERENCE: BY_HAND}


@pytest.fixture(autouse=True)
def no_garbage_in_imports():
    with imports_frozen():
        yield


def test_every_method_is_measured_on_every_problem(tmp_path, capsys):
    json_path, picture = tmp_path / "new" / "overhead.json", tmp_path / "overhead.png"
    main(["--config", "smoke", "--json", str(json_path), "--picture", str(picture)])
    content = json.loads(json_path.read_text())
    expected = [(case.name, method) for case in cases(SMOKE) for method in case.methods]
    records = content["records"]
    assert [(r["problem"], r["method"]) for r in records] == expected
    for record in records:
        assert record["error"] is None and record["calls"] >= 1
        assert 0 < record["fastest"] <= record["seconds"] <= record["slowest"]
        assert 0 < record["ratio_least"] <= record["ratio"] <= record["ratio_most"]
        if record["method"] == record["reference"]:
            assert record["ratio"] == 1
        random = "evograd, K" in record["problem"]
        assert (record["difference"] is None) == random
    assert content["environment"]["threads"] == content["config"]["threads"] == 1
    assert picture.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert all(case.name in printed for case in cases(SMOKE))


@pytest.mark.parametrize("network", SMOKE.networks, ids=lambda network: network.kind)
def test_all_methods_give_the_same_gradient(network):
    found = cases(replace(SMOKE, networks=(network,), estimators=("guided",)))
    assert len(found) == 2 * len(SMOKE.steps) + 1
    for case in found:
        assert case.reference == FAMILIES[case.tolerance]
        differences, errors = compared(case)
        assert not errors and differences.keys() == case.methods.keys()
        assert max(differences.values()) < 1e-9, case.name


def test_first_and_second_order_are_not_the_same():
    network = SMOKE.networks[0]
    first, second = cases(replace(SMOKE, networks=(network,), steps=(2,)))[:2]
    one, other = (
        case.methods[LEARN2LEARN](make_task(network, torch.float64))()
        for case in (first, second)
    )
    assert not torch.allclose(one[0], other[0], rtol=1e-3)


@pytest.mark.parametrize("method", hypergradient_methods(EvoGrad()))
def test_what_many_candidates_estimate_is_the_exact_hypergradient(method):
    # Random draws cannot be compared one by one, so many candidates are compared with
    # the exact hypergradient. Its length shows that all methods use the same units.
    task = make_task(SMOKE.networks[0], torch.float64)
    (exact,) = hypergradient_methods(Exact())[LEARNER](task)()
    torch.manual_seed(0)
    (found,) = hypergradient_methods(EvoGrad(512))[method](task)()
    assert torch.cosine_similarity(found, exact, dim=0) > 0.9
    assert float(found.norm() / exact.norm()) == pytest.approx(1, abs=0.3)


def test_a_method_with_another_gradient_is_not_timed(capsys):
    case = cases(SMOKE)[0]

    def wrong(task):
        right = case.methods[LEARN2LEARN](task)
        return lambda: [1.01 * part for part in right()]

    methods = {LEARN2LEARN: case.methods[LEARN2LEARN], "wrong": wrong}
    good, bad = records = measure_case(SMOKE, case._replace(methods=methods))
    assert good.error is None and good.seconds is not None
    assert bad.seconds is None and bad.difference == pytest.approx(0.01)
    assert bad.error == "gives another gradient, relative error 1e-02"
    print_records(Console(width=110), records)
    assert f"wrong: {bad.error}" in capsys.readouterr().out


def test_a_reference_that_fails_is_an_error():
    def failing(task):
        raise OverflowError("too much")

    case = Case("broken", SMOKE.networks[0], {BY_HAND: failing}, BY_HAND, None)
    with pytest.raises(RuntimeError, match="'by hand' of broken to run.*too much"):
        measure_case(SMOKE, case)


def test_a_round_has_as_many_calls_as_fill_its_time():
    assert calls_in(lambda: None, 0.0) == 1
    assert calls_in(lambda: None, 0.01) > 10


def test_the_default_is_of_the_sizes_asked_for():
    default = CONFIGS["default"]
    assert [n.hidden for n in default.networks] == [40, 64]
    assert [n.samples for n in default.networks] == [10, 5]
    assert default.steps == (1, 5) and default.threads == 1
    assert default.rounds >= 7 and default.seconds >= 0.3
    assert [type(ESTIMATORS[e]).__name__ for e in default.estimators] == [
        "Guided",
        "EvoGrad",
        "EvoGrad",
    ]
