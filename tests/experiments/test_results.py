import pytest
from few_settings import Settings

from l2l_evograd.experiments.results import RunResults, deviation


def test_results_know_what_is_there_and_ask_for_a_summary(tmp_path):
    results = RunResults(tmp_path, Settings(), {})
    results.runs = [{"seed": 0, "method": "a"}, {"seed": 1, "method": "a"}]
    assert results.has(1, "a") and not results.has(1, "b")
    assert [run["seed"] for run in results.of("a")] == [0, 1]
    with pytest.raises(NotImplementedError, match="RunResults lacks the method"):
        results.write()


def test_one_value_has_no_deviation():
    assert deviation([3.0]) == deviation([]) == 0.0
    assert deviation([1.0, 3.0]) == pytest.approx(2**0.5)
