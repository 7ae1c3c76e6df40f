"""Whole runs: killed and resumed, in mixed precision, in two processes."""

import importlib.util
import math
import random
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from episodic import (
    ClassWeights,
    Gradients,
    Listed,
    Tasks,
    Weighted,
    assert_same,
    fit,
    make_module,
    make_net,
    make_task,
    make_trainer,
)
from learn2learn.algorithms.lightning import LightningMAML
from learn2learn.utils.lightning import EpisodicBatcher
from torch.utils.data import DataLoader

from l2l_evograd.lightning import LightningEvoGrad

pytestmark = [
    # Lightning asks newer releases of torch in a way that they deprecate.
    pytest.mark.filterwarnings(r"ignore:.*isinstance\(treespec, LeafSpec\)"),
    # learn2learn's steps log to a logger even where there is none.
    pytest.mark.filterwarnings("ignore:You called `self.log"),
    # One core is all that a test may use.
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
]

EVOGRAD = {"hyperparameters": "4", "estimator": "evograd", "first_order": False}


class SaveAndStop(pl.Callback):
    """Saves at every turn, and ends the run within an epoch, as a signal would."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, *args):
        trainer.save_checkpoint(self.folder / f"step-{trainer.global_step}.ckpt")
        if trainer.global_step == 7:
            raise KeyboardInterrupt

    def on_validation_end(self, trainer, module):
        trainer.save_checkpoint(self.folder / f"valid-{trainer.global_step}.ckpt")


# Lightning cannot know that what a loader depends on is in the checkpoint.
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended")
@pytest.mark.parametrize("options", [{}, EVOGRAD], ids=["maml", "evograd"])
def test_a_run_that_is_resumed_equals_one_that_was_not_interrupted(tmp_path, options):
    def make(seed):
        torch.manual_seed(seed)
        schedule = {"scheduler_step": 1, "scheduler_decay": 0.5}
        return make_module(dropout=0.3, **schedule, **options)

    whole = make(3)
    fit(whole)
    with pytest.raises(SystemExit):
        fit(make(3), callbacks=[SaveAndStop(tmp_path)])
    # Not step-4: between an epoch's last batch and its validation Lightning goes on
    # with the next epoch and leaves out the validation and the scheduler.
    for name in ("step-2", "valid-4", "step-7"):
        resumed = make(99)
        fit(resumed, seed=77, ckpt_path=tmp_path / f"{name}.ckpt")
        assert_same(resumed, whole)


def test_validation_does_not_touch_the_perturbations_of_training():
    def run(**options):
        torch.manual_seed(0)
        module = make_module(**EVOGRAD)
        tasks = Listed([[1, 2, 3]])
        data = EpisodicBatcher(tasks, Tasks(), epoch_length=3)
        fit(module, data, **options)
        return module

    plain, unvalidated = run(), run(limit_val_batches=0)
    assert_same(plain, unvalidated)


def test_only_going_on_with_training_restores_the_random_state(tmp_path):
    module, path = make_module(**EVOGRAD), tmp_path / "end.ckpt"
    trainer = fit(module)
    trainer.save_checkpoint(path)
    loaded = LightningEvoGrad.load_from_checkpoint(
        path, model=make_net(), hyperparameters="4"
    )
    assert_same(loaded, module)
    assert loaded.adaptation_steps == 2 and loaded.model.first_order is False
    assert loaded.estimator == "evograd"
    python, state = random.getstate(), torch.get_rng_state()
    data = EpisodicBatcher(Listed([[1]]), epoch_length=2)
    make_trainer().test(loaded, datamodule=data, ckpt_path=path, verbose=False)
    assert random.getstate() == python
    assert torch.equal(torch.get_rng_state(), state)

    class FirstTask(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            self.task = batch if index == 0 else self.task

    # Nor does training that starts anew after that.
    first = FirstTask()
    fit(loaded, seed=5, max_epochs=1, callbacks=[first])
    random.seed(5)
    assert torch.equal(first.task[0], Tasks().sample()[0])


def test_checkpoints_of_lightning_maml_are_taken_over(tmp_path):
    theirs, path = make_module(LightningMAML), tmp_path / "maml.ckpt"
    fit(theirs).save_checkpoint(path)
    ours = make_module()
    trainer = fit(ours, max_epochs=4, ckpt_path=path)
    assert trainer.current_epoch == 4
    loaded = LightningEvoGrad.load_from_checkpoint(path, model=make_net())
    assert_same(loaded.model, theirs.model)


def test_mixed_precision_follows_lightning_maml():
    def run(method, **options):
        module = make_module(method).float()
        tasks = [[x.float(), y] for x, y in map(make_task, range(6))]
        data = DataLoader(tasks, batch_size=None)
        gradients = Gradients()
        trainer = make_trainer(
            max_epochs=1, precision="bf16-mixed", callbacks=[gradients], **options
        )
        trainer.fit(module, data, data)
        (figures,) = trainer.test(module, data, verbose=False)
        assert math.isfinite(figures["test_loss"])
        assert module.model.module[0].weight.dtype == torch.float32
        return gradients.seen[0]

    ours, theirs = run(LightningEvoGrad), run(LightningMAML, inference_mode=False)
    for name, gradient in ours.items():
        difference = (gradient - theirs[name]).norm() / theirs[name].norm()
        assert difference < 0.02, name  # a few roundings to eight bits


# Forked processes cannot use a device that their parent has used.
TWO = {
    "strategy": "ddp_spawn" if torch.cuda.is_available() else "ddp_fork",
    "devices": 2,
}


@pytest.mark.parametrize("kind", ["maml", "outside"])
def test_two_processes_give_the_gradient_of_one(tmp_path, kind):
    def module():
        if kind == "outside":
            return Weighted(ClassWeights(), estimator="exact", first_order=False)
        return make_module()

    callbacks = [Gradients(tmp_path)]
    data = EpisodicBatcher(Listed([[1, 3], [2, 4]]), Listed([[5], [6]]), epoch_length=2)
    two = make_trainer(max_epochs=1, callbacks=callbacks, **TWO)
    two.fit(module(), datamodule=data)
    data = EpisodicBatcher(Listed([[1, 2, 3, 4]]), Listed([[5, 6]]), epoch_length=4)
    one = make_trainer(max_epochs=1, accumulate_grad_batches=2, callbacks=callbacks)
    one.fit(module(), datamodule=data)
    for step in range(2):
        expected = torch.load(tmp_path / f"1-{step}-0.pt")
        assert all(gradient is not None for gradient in expected.values())
        for rank in range(2):
            gradients = torch.load(tmp_path / f"2-{step}-{rank}.pt")
            for name, gradient in gradients.items():
                torch.testing.assert_close(
                    gradient, expected[name], rtol=1e-9, atol=1e-12, msg=name
                )
    # Figures are means over both processes.
    for name in ("train_loss", "valid_loss", "valid_accuracy"):
        assert float(two.callback_metrics[name]) == pytest.approx(
            float(one.callback_metrics[name]), rel=1e-6
        )


class SeedByRank(pl.Callback):
    def __init__(self, path=None):
        self.path = path

    def on_train_start(self, trainer, module):
        random.seed(trainer.global_rank)

    def on_train_epoch_end(self, trainer, module):
        if self.path is not None and trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


def test_two_processes_that_are_resumed_draw_the_tasks_they_would_have(tmp_path):
    def run(seed, callback, **options):
        torch.manual_seed(seed)
        module = make_module(dropout=0.3, **EVOGRAD)
        gradients = Gradients(tmp_path)
        fit(module, callbacks=[callback, gradients], max_epochs=2, **TWO, **options)
        names = [f"2-{step}-{rank}.pt" for step in range(4, 8) for rank in range(2)]
        return [torch.load(tmp_path / name) for name in names]

    path = tmp_path / "middle.ckpt"
    whole = run(0, SeedByRank(path))
    for gradients, expected in zip(
        run(9, SeedByRank(), ckpt_path=path), whole, strict=True
    ):
        for name, gradient in gradients.items():
            assert torch.equal(gradient, expected[name]), name


def test_the_example_learns():
    path = Path(__file__).parents[1] / "examples" / "learn2learn" / "lightning_maml.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    figures = script.main(max_epochs=2, epoch_length=10)
    assert list(figures) == ["before", "trained", "after", "test"]
    assert figures["after"]["valid_loss"] < figures["before"]["valid_loss"]
