"""MAML under a Lightning Trainer: fit, validate and test.

Shows:   a script like learn2learn's Lightning example, with get_tasksets and
         EpisodicBatcher. The line that changes:

             maml = LightningMAML(model, **settings)
             maml = LightningEvoGrad(model, **settings)

         LightningMAML needs a Trainer with inference_mode=False to adapt to tasks in
         validation and test. LightningEvoGrad does not need it.
Prints:  loss and accuracy of training, of validation before and after training, and of
         the test classes.
Time:    about thirty seconds on one core. Needs the extra `fewshot`.

    python examples/learn2learn/lightning_maml.py --max_epochs 5
"""

import argparse
from typing import Any

import learn2learn as l2l
import pytorch_lightning as pl
from learn2learn.utils.lightning import EpisodicBatcher

from l2l_evograd.experiments.crossdomain.data.tasksets import get_tasksets
from l2l_evograd.lightning import LightningEvoGrad

TRAIN = {"train_ways": 5, "train_shots": 3, "train_queries": 3}
TEST = {"test_ways": 5, "test_shots": 3, "test_queries": 3}
INNER = {"adaptation_steps": 2, "adaptation_lr": 0.3}
SETTINGS = {**TRAIN, **TEST, **INNER, "lr": 0.01}


def make_data(name: str, settings: dict[str, Any], length: int) -> EpisodicBatcher:
    """Return the tasks of a domain, ``length`` of them in each epoch."""
    tasksets = get_tasksets(
        name,
        train_ways=settings["train_ways"],
        train_samples=settings["train_shots"] + settings["train_queries"],
        test_ways=settings["test_ways"],
        test_samples=settings["test_shots"] + settings["test_queries"],
        image_size=20,
    )
    return EpisodicBatcher(*tasksets, epoch_length=length)


def main(
    dataset: str = "print",
    max_epochs: int = 5,
    epoch_length: int = 20,
    meta_batch_size: int = 2,
    **changes: Any,
) -> dict[str, dict[str, float]]:
    """Train, print and return the figures that each stage logs."""
    pl.seed_everything(0, verbose=False)
    settings = {**SETTINGS, **changes}
    data = make_data(dataset, settings, epoch_length)
    model = l2l.vision.models.CNN4(5, hidden_size=16, embedding_size=16)
    maml = LightningEvoGrad(model, **settings)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        accumulate_grad_batches=meta_batch_size,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    figures = {"before": trainer.validate(maml, datamodule=data, verbose=False)[0]}
    trainer.fit(maml, datamodule=data)
    trained = {key: float(value) for key, value in trainer.callback_metrics.items()}
    figures["trained"] = trained
    figures["after"] = trainer.validate(maml, datamodule=data, verbose=False)[0]
    figures["test"] = trainer.test(maml, datamodule=data, verbose=False)[0]
    for stage, logged in figures.items():
        shown = (f"{name} {value:.3f}" for name, value in sorted(logged.items()))
        print(f"{stage:10}{', '.join(shown)}")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--dataset", default="print")
    parser.add_argument("--max_epochs", type=int, default=5)
    parser.add_argument("--epoch_length", type=int, default=20)
    parser.add_argument("--meta_batch_size", type=int, default=2)
    parser = LightningEvoGrad.add_model_specific_args(parser)
    parser.set_defaults(**SETTINGS)
    main(**vars(parser.parse_args()))
