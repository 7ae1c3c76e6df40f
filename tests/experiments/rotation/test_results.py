import pytest

from l2l_evograd.experiments.rotation.results import RotationResults
from l2l_evograd.experiments.rotation.settings import RotationSettings


def test_the_summary_goes_over_the_seeds(tmp_path):
    def run(method: str, accuracy: float, angle: float | None) -> dict[str, object]:
        return {
            "method": method,
            "accuracy": accuracy,
            "accuracy_back": 0.5,
            "angle": angle,
            "seconds_per_iteration": 0.1,
        }

    settings = RotationSettings(methods=("none", "exact", "guided"))
    results = RotationResults(tmp_path, settings, {})
    results.runs += [run("exact", 0.6, 20), run("exact", 0.8, 30)]
    results.runs += [run("none", 0.3, None)]
    none, exact = results.summary()
    assert (none["seeds"], none["angle"], none["accuracy_sd"]) == (1, None, 0.0)
    assert exact["accuracy"] == pytest.approx(0.7)
    assert exact["accuracy_sd"] == pytest.approx(0.02**0.5)
    assert (exact["angle"], exact["angle_sd"]) == (25, pytest.approx(50**0.5))
