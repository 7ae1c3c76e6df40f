import json

import numpy as np
import pytest

from benchmarks.accuracy import CONFIGS, PROBLEMS, main

SMOKE = CONFIGS["smoke"]
NAMES = {"noisy-labels": "noisy labels", "cross-domain": "cross-domain"}
METHODS = {
    "noisy-labels": SMOKE.noisy["methods"],
    "cross-domain": SMOKE.crossdomain["methods"],
}
ITERATIONS = {
    "noisy-labels": SMOKE.noisy["iterations"],
    "cross-domain": SMOKE.crossdomain["iterations"],
}

# Lightning asks newer releases of torch in a way that they deprecate.
pytestmark = pytest.mark.filterwarnings(r"ignore:.*isinstance\(treespec, LeafSpec\)")


@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_method_is_trained_for_equal_iterations_and_for_equal_time(
    problem, tmp_path, capsys
):
    out = tmp_path / "made" / "accuracy.json"
    picture = tmp_path / "accuracy.png"
    options = ["--json", str(out), "--picture", str(picture)]
    main(["--config", "smoke", "--problem", problem, *options])
    content = json.loads(out.read_text())
    records = content["records"]
    simple, exact = METHODS[problem]
    assert [(r["problem"], r["budget"], r["method"]) for r in records] == [
        (NAMES[problem], budget, method)
        for budget in ("equal iterations", "equal time")
        for method in (simple, exact)
    ]
    for record in records:
        accuracies = record["accuracies"]
        assert len(accuracies) == SMOKE.seeds
        assert 0 <= min(accuracies) <= max(accuracies) <= 1
        assert record["accuracy"] == pytest.approx(np.mean(accuracies))
        error = np.std(accuracies, ddof=1) / SMOKE.seeds**0.5
        assert record["accuracy_error"] == pytest.approx(error)
        product = record["iterations"] * record["seconds_per_iteration"]
        assert record["training_seconds"] == pytest.approx(product) and product > 0

    iterations = ITERATIONS[problem]
    equal, timed = records[:2], records[2:]
    assert [record["iterations"] for record in equal] == [iterations] * 2
    # In equal time the exact method makes the same iterations and finds the same. The
    # other one makes as many as come closest to the exact method's time.
    assert timed[1]["iterations"] == iterations
    assert timed[1]["accuracies"] == equal[1]["accuracies"]
    short, long = (record["seconds_per_iteration"] for record in equal)
    if timed[0]["iterations"] > 1:
        assert abs(timed[0]["iterations"] * short - iterations * long) <= short / 2
    for first, other in (equal, timed):
        gains = np.subtract(other["accuracies"], first["accuracies"])
        assert first["gain"] == first["gain_error"] == 0
        assert other["gain"] == pytest.approx(gains.mean())
        error = gains.std(ddof=1) / SMOKE.seeds**0.5
        assert other["gain_error"] == pytest.approx(error)

    assert content["config"]["seeds"] == SMOKE.seeds
    assert content["environment"]["threads"] == 1
    assert picture.stat().st_size > 10_000
    printed = capsys.readouterr().out
    lines = [line.split(":")[0] for line in printed.splitlines() if " | " in line]
    assert lines == [f"{r['problem']}, {r['budget']} | {r['method']}" for r in records]
