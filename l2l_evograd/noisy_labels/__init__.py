"""Learning with noisy labels: sample weights learned by Meta-Weight-Net."""

from l2l_evograd.noisy_labels.corruption import corrupt_labels, long_tail
from l2l_evograd.noisy_labels.module import NoisyLabelModule
from l2l_evograd.noisy_labels.split import split_meta
from l2l_evograd.noisy_labels.weighting import MetaWeightNet, weighted_loss

__all__ = [
    "MetaWeightNet",
    "NoisyLabelModule",
    "corrupt_labels",
    "long_tail",
    "split_meta",
    "weighted_loss",
]
