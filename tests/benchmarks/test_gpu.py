import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks import gpu_rows
from benchmarks.gpu import RESULTS, line_of, main, measured
from benchmarks.gpu_calls import FORWARD_MODE, GUIDED, HIGHER, bilevel_call
from benchmarks.gpu_measuring import HalfPrecision, capturable, in_half_precision
from benchmarks.gpu_rows import CONFIGS, Config, Row, rows_of
from benchmarks.problems import TransformsConfig, transforms_problem

CPU = torch.device("cpu")
SMOKE = CONFIGS["smoke"]
SECTIONS = {"tables", "paper", "growth", "meta-batch", "noisy labels"}
_TINY = TransformsConfig("cnn4", "relationnet", 2, 1, 2, image_size=16)

# Lightning asks newer releases of torch in a way that they deprecate.
pytestmark = pytest.mark.filterwarnings(r"ignore:.*isinstance\(treespec, LeafSpec\)")


def call(out, *options: str) -> None:
    chosen = ["--out", str(out), "--device", "cpu", "--config", "smoke"]
    main([*chosen, "--minutes", "5", *options])


def rows_in(out) -> list[dict]:
    return json.loads((out / RESULTS).read_text())["rows"]


def key(record: dict) -> tuple[str, ...]:
    return tuple(record[name] for name in Row._fields[:4])


@pytest.fixture
def few_rows(monkeypatch):
    """Only the rows of a small part of the session."""
    small = Config(
        bilevel={"LFT, CNN4": _TINY},
        maml={},
        large=(),
        sizes=(),
        batches=(),
        noisy_methods=(),
        noisy={"iterations": 1},
        rounds=1,
    )
    monkeypatch.setitem(CONFIGS, "smoke", small)


def test_every_row_is_measured_or_says_why_not(tmp_path, capsys):
    call(tmp_path / "new")
    rows = rows_in(tmp_path / "new")
    assert [key(r) for r in rows] == [row.key for row in rows_of(SMOKE, CPU, None)]
    assert len({key(r) for r in rows}) == len(rows)
    assert [r for r in rows if "error" in r] == []
    skipped = [r for r in rows if "skipped" in r]
    assert {r["skipped"] for r in skipped} == {"needs CUDA"}
    assert {r["mode"] for r in skipped} == {"CUDA graph", "compiled", "float32"}
    done = [r for r in rows if "skipped" not in r]
    assert {r["section"] for r in done} == SECTIONS
    for record in done:
        assert record["seconds"] > 0 and record["peak_bytes"] >= 0
    for record in done:
        if record["section"] == "paper":
            assert record["gb"] == record["peak_bytes"] / 1e9
            assert record["seconds_per_100_episodes"] == 100 * record["seconds"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines[:-1]] == [
        " | ".join(key(r)) for r in rows
    ]


@pytest.mark.usefixtures("few_rows")
def test_a_second_call_measures_what_is_missing(tmp_path, capsys):
    call(tmp_path)
    path = tmp_path / RESULTS
    content = json.loads(path.read_text())
    complete = content["rows"]
    removed = [r for r in complete if r["method"] in (HIGHER, GUIDED)]
    content["rows"] = [r for r in complete if r not in removed]
    path.write_text(json.dumps(content))
    capsys.readouterr()
    call(tmp_path)
    assert rows_in(tmp_path)[: len(content["rows"])] == content["rows"]
    assert {key(r) for r in rows_in(tmp_path)} == {key(r) for r in complete}
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == len(removed) and "0 left" in last


@pytest.mark.usefixtures("few_rows")
def test_no_row_is_started_without_time(tmp_path, capsys):
    call(tmp_path, "--minutes", "0")
    assert not (tmp_path / RESULTS).exists()
    count = len(list(rows_of(CONFIGS["smoke"], CPU, None)))
    assert f"0 rows in {tmp_path / RESULTS}, {count} left" in capsys.readouterr().out
    # 3 seconds are enough for the rows of 2 seconds, and for no other.
    call(tmp_path, "--minutes", "0.05")
    assert {r["section"] for r in rows_in(tmp_path)} == {"synchronisations"}


@pytest.mark.usefixtures("few_rows")
@pytest.mark.parametrize(("name", "value"), [("config", "full"), ("device", "Abacus")])
def test_a_folder_of_another_session_is_refused(tmp_path, capsys, name, value):
    call(tmp_path)
    path = tmp_path / RESULTS
    content = json.loads(path.read_text()) | {name: value}
    path.write_text(json.dumps(content))
    capsys.readouterr()
    with pytest.raises(SystemExit) as refusal:
        call(tmp_path)
    assert refusal.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path} was measured with {name} {value!r}, not ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_and_a_broken_file_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as refusal:
        main(["--out", str(tmp_path)])
    assert refusal.value.code == 2
    assert capsys.readouterr().err == (
        "error: expected a GPU for --device cuda, but CUDA is not available\n"
    )
    (tmp_path / RESULTS).write_text("{")
    with pytest.raises(SystemExit) as refusal:
        call(tmp_path)
    assert refusal.value.code == 2 and "is not JSON" in capsys.readouterr().err


def test_errors_are_recorded_and_larger_sizes_are_skipped():
    def full() -> dict:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    def broken() -> dict:
        raise OverflowError("too much")

    first = Row("growth", "p, 16 queries", "m", "float32", 1, full)
    second = first._replace(problem="p, 32 queries", measure=broken, after=first)
    third = second._replace(problem="p, 64 queries", after=second)
    records = {}
    for row in (first, second, third):
        records[row.key] = measured(row, CPU, records)
    one, two, three = records.values()
    assert one["error"] == "out of memory" and "skipped" not in one
    assert two["skipped"] == three["skipped"] == "a smaller size ran out of memory"
    alone = measured(second._replace(after=None), CPU, {})
    assert alone["error"] == "OverflowError: too much"
    assert "p, 32 queries | m | float32: error OverflowError" in line_of(alone)


def test_growing_episodes_follow_each_other():
    growth = [r for r in rows_of(SMOKE, CPU, None) if r.section == "growth"]
    for smaller, row in zip(growth, growth[1:], strict=False):
        assert row.after is (smaller if smaller.method == row.method else None)


def test_the_full_session_is_of_the_sizes_asked_for():
    full = CONFIGS["full"]
    paper = [(c.backbone, c.image_size, c.shots, c.queries) for c in full.large]
    assert paper[:2] == [("resnet10", 224, 5, 16), ("resnet34", 224, 5, 16)]
    assert ("resnet18", 224, 5, 16) in paper and ("resnet10", 224, 1, 16) in paper
    assert (full.growth.backbone, full.growth.image_size) == ("resnet34", 224)
    assert full.sizes[:3] == (16, 32, 64)
    sections = dict.fromkeys(row.section for row in rows_of(full, CPU, None))
    assert list(sections) == [
        *("tables", "paper", "growth", "meta-batch"),
        *("synchronisations", "noisy labels"),
    ]


def test_half_precision_changes_the_gradient_a_little():
    found = {
        mode: torch.cat(
            [g.flatten() for g in bilevel_call(_TINY, FORWARD_MODE, CPU, mode)()]
        )
        for mode in ("float32", "bf16")
    }
    distance = (found["bf16"] - found["float32"]).norm() / found["float32"].norm()
    assert 1e-4 < float(distance) < 0.5


def test_half_precision_wraps_networks_and_refuses_other_problems():
    net = HalfPrecision(nn.Linear(2, 2), CPU)
    x = torch.randn(3, 2)
    assert net(x).dtype == torch.float32
    assert not torch.equal(net(x), net.network(x))
    with pytest.raises(TypeError, match="expected a Bilevel or a MamlTask"):
        in_half_precision(net, CPU)


def test_optimizers_are_made_capturable():
    problem = transforms_problem(replace(_TINY), CPU, torch.contiguous_format)
    capturable(problem)
    groups = [g for o in (problem.base, problem.hyper) for g in o.param_groups]
    assert len(groups) == 2 and all(group["capturable"] for group in groups)
    assert gpu_rows.CONFIGS["smoke"] is SMOKE
