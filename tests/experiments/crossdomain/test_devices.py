"""Cross-domain meta-training in several processes."""

import pytest
import torch
from launched import fitted, killed_and_gone_on_with, quiet
from photographs import make_domain
from tiny import WAYS, tiny_model, tiny_pairs, tiny_settings

from l2l_evograd.experiments.crossdomain.methods import METHODS
from l2l_evograd.experiments.crossdomain.training.meta_training import MetaTraining
from l2l_evograd.layers import add_feature_transforms


def kept(module):
    return {
        "state": {name: p.detach() for name, p in module.named_parameters()},
        "buffers": dict(module.model.named_buffers()),
        "losses": module.losses,
        "strengths": module.strengths,
    }


def fit(folder, name, devices, iterations=3, **options):
    model, method = tiny_model().double(), METHODS[name]
    if method.uses_lambda:
        add_feature_transforms(model.backbone)
    module = MetaTraining(
        model,
        method,
        Doubled(),
        ways=WAYS,
        lr=1e-3,
        meta_lr=1e-3,
        seed=0,
        iterations=iterations,
        block=2,
        **options,
    )
    return fitted(module, folder, devices, -(-iterations // 2), kept)


class Doubled:
    """Episodes in double precision, in which the order of a sum hardly matters."""

    def __init__(self):
        self.pairs = tiny_pairs()

    def pair(self, number):
        pair = self.pairs.pair(number)
        return type(pair)(
            *(e._replace(support_x=e.support_x.double(), query_x=e.query_x.double())
              for e in pair)
        )  # fmt: skip


@quiet
@pytest.mark.parametrize("name", ["none", "lft-exact", "lft-guided"])
def test_two_processes_take_the_steps_of_one_that_accumulates(tmp_path, name):
    (one,) = fit(tmp_path, name, 1, accumulate=2)
    for two in fit(tmp_path, name, 2):
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-9)
        for key, value in two["state"].items():
            torch.testing.assert_close(value, one["state"][key], rtol=1e-7, atol=1e-9)


@quiet
@pytest.mark.parametrize("name", ["ft", "lft-evograd", "lft-guided"])
def test_two_processes_stay_together(tmp_path, name):
    first, second = fit(tmp_path, name, 2, accumulate=2)
    assert first["losses"] == second["losses"]
    assert first["strengths"] == second["strengths"]
    for part in ("state", "buffers"):
        for key, value in first[part].items():
            assert torch.equal(value, second[part][key]), key


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": 0}, "devices to be a whole number of at least 1"),
        ({"devices": 2, "device": "cpu:0"}, "unknown device 'cpu:0'; choose"),
        ({"nodes": 2}, "torchrun to start the processes of 2 nodes"),
    ],
)
def test_impossible_numbers_of_processes(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_settings(**changes).check_machine()


def test_a_command_in_two_processes_is_killed_and_goes_on(tmp_path):
    for name in ("birds", "cars", "dogs"):
        make_domain(tmp_path / "data", name)
    line = ["crossdomain", "--data", str(tmp_path / "data"), "--unseen", "dogs"]
    line += ["--methods", "ft,lft-guided", "--iterations", "6", "--save-every", "2"]
    line += ["--pretrain-epochs", "1", "--episodes", "10", "--image-size", "16"]
    line += ["--ways", "2", "--shots", "1", "--queries", "1"]
    line += ["--devices", "2", "--device", "cpu", "--seeds", "1"]
    said = "lft-guided on dogs"
    killed_and_gone_on_with(tmp_path, line, "lft-guided", said)
