"""Cross-domain meta-training in several processes."""

import pytest
import pytorch_lightning as pl
import torch
from launched import killed_and_gone_on_with
from test_metatraining import SHAPE, episode_pairs, start
from tiny import tiny_dataset, tiny_settings

from l2l_evograd.fewshot.draws import ClassBatches
from l2l_evograd.fewshot.metatraining import MetaTraining
from l2l_evograd.fewshot.methods import METHODS
from l2l_evograd.layers import add_feature_transforms

# Lightning asks newer releases of torch in a way that they deprecate.
quiet = pytest.mark.filterwarnings(r"ignore:.*isinstance\(treespec, LeafSpec\)")


class Kept(pl.Callback):
    """Leaves what every process ended with in a file."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_end(self, trainer, module):
        state = {name: p.detach() for name, p in module.named_parameters()}
        kept = {"state": state, "losses": module.losses, "strengths": module.strengths}
        kept["buffers"] = dict(module.model.named_buffers())
        torch.save(kept, self.folder / f"{trainer.world_size}-{module.global_rank}.pt")


def fit(folder, name, devices, iterations=3, auxiliary=False, **options):
    model, method = start().double(), METHODS[name]
    if method.transforms:
        add_feature_transforms(model.backbone)
    module = MetaTraining(
        model,
        method,
        Doubled(),
        ways=SHAPE[0],
        lr=1e-3,
        meta_lr=1e-3,
        seed=0,
        iterations=iterations,
        block=2,
        auxiliary=ClassBatches(tiny_dataset("pre"), 6, seed=0) if auxiliary else None,
        **options,
    )
    trainer = pl.Trainer(
        max_epochs=-(-iterations // 2),
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        strategy="ddp_fork" if devices > 1 else "auto",
        devices=devices,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Kept(folder)],
    )
    trainer.fit(module)
    return [torch.load(folder / f"{devices}-{rank}.pt") for rank in range(devices)]


class Doubled:
    """Episodes in double precision, in which the order of a sum hardly matters."""

    def __init__(self):
        self.pairs = episode_pairs()

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
        ({"devices": 0}, "devices to be at least 1"),
        ({"devices": 2, "device": "cpu:0"}, "first ones are taken"),
        ({"nodes": 2}, "2 nodes to be started by torchrun"),
    ],
)
def test_impossible_numbers_of_processes(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_settings(**changes)


def test_a_command_in_two_processes_is_killed_and_goes_on(tmp_path):
    line = ["crossdomain", "--methods", "ft,lft-guided", "--iterations", "6"]
    line += ["--save-every", "2", "--pretrain-epochs", "1", "--episodes", "10"]
    line += ["--image-size", "16", "--queries", "2", "--shots", "1"]
    line += ["--devices", "2", "--device", "cpu"]
    said = "lft-guided on sketch"
    killed_and_gone_on_with(tmp_path, line, "lft-guided", said)
