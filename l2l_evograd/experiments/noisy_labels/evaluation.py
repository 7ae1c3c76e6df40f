"""Accuracy and losses of a model on a data set, without training."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from l2l_evograd.experiments.noisy_labels.batches import Batch, Samples, collate

_BATCH = 500


def accuracy(model: nn.Module, samples: Samples) -> float:
    """Return the fraction of samples whose class gets the highest score.

    Args:
        model: maps inputs to scores, shape (N, C); used in evaluation mode.
        samples: the data set.
    """
    right = sum(
        int((scores.argmax(1) == batch.labels).sum())
        for batch, scores in _scored(model, samples)
    )
    return right / len(samples)


def sample_losses(model: nn.Module, samples: Samples) -> Tensor:
    """Return the cross entropy of every sample, shape (N,), on the CPU."""
    return torch.cat(
        [
            functional.cross_entropy(scores, batch.labels, reduction="none").cpu()
            for batch, scores in _scored(model, samples)
        ]
    )


@torch.no_grad()
def _scored(model: nn.Module, samples: Samples) -> Iterator[tuple[Batch, Tensor]]:
    device = next(model.parameters()).device
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        for start in range(0, len(samples), _BATCH):
            chosen = list(range(start, min(start + _BATCH, len(samples))))
            batch = collate(samples, chosen).to(device)
            yield batch, model(batch.inputs)
    finally:
        for module, mode in modes:
            module.training = mode
