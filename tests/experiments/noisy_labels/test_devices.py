"""Noisy labels in several processes."""

import pytest
import torch
from launched import ALONE, end, figures, fitted, quiet, start
from noisy import coloured, tiny_module, tiny_settings
from torch import nn
from torch.utils.data import TensorDataset

from l2l_evograd.experiments.noisy_labels.module import NoisyLabelModule


def kept(module):
    curve = [point["accuracy"] for point in module.curve]
    return {"state": module.state_dict(), "losses": module.losses, "curve": curve}


def fit(folder, method, devices, model=None, **changes):
    torch.manual_seed(0)
    data = [
        TensorDataset(images.images.double() / 255, images.labels)
        for images in (coloured(10, 0), coloured(3, 2))
    ]
    if model is None:
        model = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.Tanh())
        model.append(nn.Linear(8, 4))
    options = {"batch_size": 8, "iterations": 5, "lr": 0.05, **changes}
    options["augment"] = lambda x: x + 0.1 * torch.randn_like(x)
    module = NoisyLabelModule(model.double(), *data, method=method, **options)
    return fitted(module.double(), folder, devices, module.blocks, kept)


@quiet
def test_two_processes_see_the_batches_of_one(tmp_path):
    (one,) = fit(tmp_path, "baseline", 1)
    for two in fit(tmp_path, "baseline", 2):
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-9)
        for name, value in two["state"].items():
            torch.testing.assert_close(value, one["state"][name], rtol=1e-9, atol=1e-12)


@quiet
@pytest.mark.parametrize("method", ["frozen", "exact", "evograd-paper", "guided"])
def test_two_processes_stay_together(tmp_path, method):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(4 * 7 * 7, 4),
    )  # fmt: skip
    images = coloured(5, 1)
    test = TensorDataset(images.images.double() / 255, images.labels)
    first, second = fit(tmp_path, method, 2, model, test=test)
    assert first["losses"] == second["losses"]
    assert first["curve"] == second["curve"] and len(first["curve"]) == 5
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name]), name


def test_batches_that_cannot_be_shared_are_refused():
    module = tiny_module()
    options = {"world_size": 3, "precision": "32-true", "global_rank": 0}
    module._trainer = type("Trainer", (), options)()
    with pytest.raises(ValueError, match="3 processes can share equally, got 10"):
        module.on_fit_start()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": 0}, "devices to be a whole number of at least 1"),
        ({"devices": 3}, "3 devices can share equally, got 10; use 9"),
        ({"devices": 2, "device": "cpu:0"}, "unknown device 'cpu:0'; choose"),
    ],
)
def test_impossible_numbers_of_devices(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_settings(**changes).check_machine()


def test_a_command_in_two_processes_has_one_log_and_the_figures_of_both(tmp_path):
    line = ["noisy-labels", "--methods", "guided", "--train-images", "60"]
    line += ["--iterations", "2", "--test-images", "50", "--image-size", "16"]
    line += ["--seeds", "1"]
    line += ["--devices", "2", "--device", "cpu", "--out", str(tmp_path / "run")]
    assert end(start(ALONE, *line)).count("guided: best") == 1
    assert len(figures(tmp_path / "run")) == 1
    (log,) = (tmp_path / "run" / "logs").iterdir()
    assert [path.name for path in log.iterdir()] == ["version_0"]
