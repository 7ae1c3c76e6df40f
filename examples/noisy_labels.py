"""Weights of samples with wrong labels, learned from a few clean samples.

Shows:   NoisyLabelModule with your own tensors and your own model, under Lightning.
Prints:  accuracy without weights and with learned weights, and the learned weights.
Time:    about a minute on one core.

    python examples/noisy_labels.py
"""

import torch
from pytorch_lightning import Trainer
from torch import nn
from torch.utils.data import TensorDataset

from l2l_evograd.experiments.noisy_labels import (
    NoisyLabelModule,
    corrupt_labels,
    split_meta,
)

generator = torch.Generator().manual_seed(0)
LABELS = torch.randint(4, (3000,), generator=generator)
INPUTS = torch.randn(4, 20, generator=generator)[LABELS]
INPUTS += 1.5 * torch.randn(3000, 20, generator=generator)
TRAIN, META = split_meta(LABELS[:2000], num_meta=80, num_classes=4, seed=0)
NOISY, _ = corrupt_labels(LABELS[TRAIN], "flip", 0.4, 4, generator)


def main(epochs: int = 30) -> dict[str, NoisyLabelModule]:
    """Train on samples of which 40 % have a wrong label, and return the modules."""
    modules = {}
    for method in ("baseline", "guided"):
        torch.manual_seed(0)
        module = modules[method] = NoisyLabelModule(
            nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 4)),
            TensorDataset(INPUTS[TRAIN], NOISY),
            TensorDataset(INPUTS[META], LABELS[META]),
            test=TensorDataset(INPUTS[2000:], LABELS[2000:]),
            method=method,
            epochs=epochs,
            lr=0.05,
            meta_lr=0.1,
        )
        trainer = Trainer(
            max_epochs=module.blocks,
            reload_dataloaders_every_n_epochs=1,
            logger=False,
            enable_checkpointing=False,
        )
        trainer.fit(module)
        print(f"{method}: accuracy {module.curve[-1]['accuracy']:.1%}")
    weights = modules["guided"].weight_net(torch.tensor([0.0, 0.5, 1.0, 2.0, 4.0]))
    print("weights of losses 0, 0.5, 1, 2, 4:", weights.tolist())
    return modules


if __name__ == "__main__":
    main()
