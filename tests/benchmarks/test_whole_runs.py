import json
from dataclasses import replace

import pytest
import torch

from benchmarks.whole_runs import FULL, QUICK, main, measure
from benchmarks.whole_runs_pictures import advice
from benchmarks.whole_runs_problems import (
    FORWARD,
    GREEDY,
    HIGHER,
    LENET,
    METHODS,
    MLP,
    RATES,
    REVERSIBLE,
    UNROLLED,
    WEIGHTS,
    Work,
    make_run,
)
from benchmarks.whole_runs_records import RunRecord, crossing, line_of


def test_every_method_is_measured_on_every_run(tmp_path, capsys):
    json_path, picture = tmp_path / "new" / "runs.json", tmp_path / "runs.png"
    main(["--quick", "--json", str(json_path), "--picture", str(picture)])
    content = json.loads(json_path.read_text())
    expected = [
        (work.network, work.steps, work.learned, work.count, method)
        for work in QUICK.works()
        for method in METHODS
    ]
    keys = ("network", "steps", "learned", "count", "method")
    assert [tuple(r[key] for key in keys) for r in content["records"]] == expected
    for record in content["records"]:
        if record["method"] == FORWARD and record["count"] > 1000:
            assert "expected at most limit=1000" in record["error"]
            assert record["seconds"] is None
            continue
        assert record["error"] is None and record["calls"] == QUICK.rounds
        assert 0 < record["seconds"] <= record["slowest"] and record["passed"] > 0
        assert record["peak_bytes"] >= 0 and record["load"] >= 0
        assert (record["difference"] < 1e-5) == (record["method"] != GREEDY)
    assert content["environment"]["threads"] == content["config"]["threads"] == 1
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(capsys.readouterr().out.splitlines()) == len(expected)


@pytest.mark.parametrize(
    ("network", "learned", "count"),
    [(MLP, RATES, 3), (MLP, WEIGHTS, 7), (LENET, RATES, 2)],
)
def test_all_methods_but_the_greedy_one_give_the_same_number(network, learned, count):
    work = Work(network, 4, learned, count)
    expected = METHODS[UNROLLED](make_run(work, torch.float64))
    assert expected.shape == (count,) and expected.norm() > 1e-6
    for method in (FORWARD, REVERSIBLE, HIGHER):
        found = METHODS[method](make_run(work, torch.float64))
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12, msg=method)
    other = METHODS[GREEDY](make_run(work, torch.float64))
    assert not torch.allclose(other, expected, rtol=1e-3)


def test_a_record_is_made_in_a_process_of_its_own():
    steps = ((MLP, (2,)),)
    config = replace(QUICK, windows=1, steps=steps, counts=(), rounds=2, fresh=True)
    records = measure(config)
    assert [record.method for record in records] == list(METHODS)
    assert {record.calls for record in records} == {2}
    assert all(record.error is None for record in records)


def test_long_calls_are_not_repeated():
    steps = ((MLP, (2,)),)
    config = replace(QUICK, steps=steps, counts=(), rounds=2, longest=0.0)
    assert {record.calls for record in measure(config)} == {1}


def test_where_curves_cross():
    flat = [(1, 10.0), (10, 10.0), (100, 10.0)]
    assert crossing([(1, 1.0), (10, 10.0), (100, 100.0)], flat) == pytest.approx(10)
    steep = [(1, 1.0), (100, 100.0)]
    assert crossing(steep, flat) == pytest.approx(10)  # where only one was measured
    assert crossing([(1, 20.0), (10, 30.0)], flat) is None
    assert crossing([(1, 1.0), (10, 2.0)], flat) is None


def test_the_picture_says_what_the_figures_say():
    def record(method: str, count: int, seconds: float, mebibytes: int) -> RunRecord:
        return RunRecord(
            *(MLP, 50, WEIGHTS, count, method, seconds, seconds, seconds, 2),
            peak_bytes=mebibytes * 2**20,
        )

    records = [
        record(method, count, *costs)
        for count in (1, 100)
        for method, costs in {
            UNROLLED: (0.1, 900),
            FORWARD: (0.01 * count, 2 * count),
            REVERSIBLE: (0.3, 20),
        }.items()
    ]
    text = " ".join(advice(records))
    assert "longer than reversible_sgd from 30 λ on" in text
    assert "more memory from 10 λ on" in text
    few = " ".join(advice([r for r in records if r.count == 1]))
    assert "longer than reversible_sgd nowhere" in few


def test_a_record_in_one_line():
    record = RunRecord(MLP, 50, RATES, 8, UNROLLED, error="too much")
    start = "MLP 784-100-100-10, T = 50, 8 learning rates | unrolled_sgd"
    assert line_of(record) == f"{start}: fails: too much"
    record = replace(
        record, seconds=1.0, passed=1.5, calls=1, peak_bytes=2**21, load=1.0
    )
    assert line_of(record) == (
        f"{start}: 1.00 s (1.50 s passed), fastest of 1, 2 MiB, distance -, load 1.0; "
        "incomplete: too much"
    )


def test_the_default_is_of_the_sizes_asked_for():
    steps = dict(FULL.steps)
    assert steps[MLP] == (50, 100, 200, 500, 1000, 2000) and len(steps[LENET]) >= 3
    assert FULL.windows == 8 and FULL.fresh
    assert FULL.counts[0] == 1 and FULL.counts[-1] == 10_000
    for network, size in ((MLP, 89_610), (LENET, 44_426)):
        run = make_run(Work(network, 1, RATES, 1))
        assert sum(weight.numel() for weight in run.params.values()) == size
