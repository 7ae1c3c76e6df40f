"""A Lightning module leaves a bad batch out before anything has moved."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from l2l_evograd.checks import InputError, NotFiniteError

pl = pytest.importorskip("pytorch_lightning")
lightning = pytest.importorskip("l2l_evograd.lightning")

BAD = 1  # the number of the batch that is bad


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


class Losses:
    """Cross entropy that is bad at one batch, in value, in gradient, or at the end."""

    def __init__(self, kind):
        self.kind = kind
        self.batch = 0

    def __call__(self, outputs, labels):
        loss = F.cross_entropy(outputs, labels)
        if self.batch == BAD and self.kind == "value":
            return loss * math.nan
        if self.batch == BAD and self.kind == "gradient":
            return loss + (loss * 0).sqrt()
        return loss


class Watching(pl.Callback):
    """Notes the state before and after every batch."""

    def __init__(self):
        self.states = []

    def on_train_batch_start(self, trainer, module, batch, number):
        module.loss.batch = number
        self.states.append(state(trainer, module))

    def on_train_batch_end(self, trainer, module, outputs, batch, number):
        self.states[-1] = self.states[-1], state(trainer, module)


def state(trainer, module):
    found = list(module.state_dict().values())
    for optimizer in trainer.optimizers:
        found += [v for s in optimizer.state.values() for v in s.values()]
    return [torch.as_tensor(value).clone() for value in found]


def tasks():
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(4, 4, generator=generator), torch.tensor([0, 0, 1, 1]))
        for _ in range(4)
    ]


def fit(module, tmp_path):
    watching = Watching()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[watching],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        num_sanity_val_steps=0,
    )
    loader = torch.utils.data.DataLoader(tasks(), batch_size=None)
    trainer.fit(module, loader)
    return trainer, watching.states


def made(kind, policy, which):
    sizes = {"train_ways": 2, "test_ways": 2, "adaptation_steps": 2, "lr": 0.01}
    options = {"loss": Losses(kind), "nan_policy": policy, **sizes}
    if which == "warp":
        return lightning.LightningWarpGrad(network(), warp="2", **options)
    if which == "aruba":
        return lightning.LightningARUBA(network(), **options)
    return lightning.LightningEvoGrad(network(), **options)


# Warnings of the trainer about its own code and about the size of this test.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("kind", ["value", "gradient"])
@pytest.mark.parametrize("which", ["evograd", "warp", "aruba"])
def test_a_bad_batch_is_left_out_and_counted(which, kind, tmp_path):
    module = made(kind, "skip", which)
    trainer, states = fit(module, tmp_path)
    for number, (before, after) in enumerate(states):
        same = len(before) == len(after) and all(map(torch.equal, before, after))
        assert same == (number == BAD)
    assert module.skipped == 1
    assert trainer.callback_metrics["train_skipped"] == 1
    checkpoint = {}
    module.on_save_checkpoint(checkpoint)
    again = made(kind, "skip", which)
    again.on_load_checkpoint(checkpoint)
    again.trainer = trainer
    again.on_train_start()
    assert again.skipped == 1


@pytest.mark.parametrize("kind", ["value", "gradient"])
@pytest.mark.parametrize("which", ["evograd", "warp", "aruba"])
def test_a_bad_batch_ends_a_run_before_anything_has_moved(which, kind, tmp_path):
    module = made(kind, "raise", which)
    kept = {}

    class Keeping(Watching):
        def on_train_batch_start(self, trainer, module, batch, number):
            super().on_train_batch_start(trainer, module, batch, number)
            kept["before"], kept["trainer"] = self.states[-1], trainer

    module.configure_callbacks = lambda: [Keeping()]
    with pytest.raises(NotFiniteError):
        fit(module, tmp_path)
    after = state(kept["trainer"], module)
    assert all(map(torch.equal, kept["before"], after))


def test_settings_that_are_none_are_refused():
    for name, value in (
        ("train_shots", 1.5), ("adaptation_steps", None), ("lr", math.nan),
        ("nan_policy", "ignore"), ("scheduler_step", 0), ("scheduler_decay", "half"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"expected {name} "):
            lightning.LightningEvoGrad(network(), **{name: value})
