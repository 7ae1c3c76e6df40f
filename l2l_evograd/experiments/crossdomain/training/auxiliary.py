"""The auxiliary loss of multi-domain meta-training: classes of the base domain.

In addition to its episodes, meta-training on several domains classifies images of the
base domain, on which the encoder was pre-trained. The weight of this loss decreases
during training.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2l_evograd.experiments.crossdomain.networks.backbones import in_evaluation_mode
from l2l_evograd.experiments.crossdomain.networks.features import averaged

# Training has stages of equal length. The weight falls by a tenth at each new stage.
_STAGES = 20
_DECAY = 0.9


class AuxiliaryClassifier(nn.Module):
    """A classifier of base classes on top of the encoder that meta-training trains.

    The layers are: average of the feature maps over their pixels, linear, ReLU, linear,
    ReLU, linear. The hidden layers are as wide as the features, 512 for ResNets.

    Args:
        backbone_channels: C of the feature maps.
        classes: number of classes; 64 for miniImagenet's base classes.

    Source: Tseng et al., ICLR 2020, as in the released code of EvoGrad, which uses
    batches of 16 images.
    """

    def __init__(self, backbone_channels: int, classes: int) -> None:
        super().__init__()
        width = backbone_channels
        self.classes = classes
        self.layers = nn.Sequential(
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, classes),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Return scores, shape (N, classes), of feature maps (N, C, h, w)."""
        return cast(Tensor, self.layers(averaged(maps)))

    def loss(self, backbone: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of a batch, a scalar.

        The encoder is in evaluation mode for the call. Batch norms use their running
        statistics and do not change them, and feature-wise transformation is off.
        Gradients reach the encoder and the classifier.

        Args:
            backbone: maps images to feature maps.
            images: shape (N, 3, S, S).
            labels: classes of the images, 0 to ``classes`` − 1, shape (N,).

        Raises:
            ValueError: for labels out of this range.
        """
        low, high = (int(bound) for bound in torch.aminmax(labels))
        if low < 0 or high >= self.classes:
            raise ValueError(
                f"expected labels from 0 to {self.classes - 1}, got {low} to {high}: "
                f"number the base classes from 0 without gaps"
            )
        with in_evaluation_mode(backbone):
            maps = backbone(images)
        return F.cross_entropy(self(maps), labels)


def auxiliary_weight(iteration: int, iterations: int) -> float:
    """Return the weight of the auxiliary loss, 0.9^⌊20 t / T⌋.

    Args:
        iteration: t, counted from 0.
        iterations: T, the total number of iterations.

    Raises:
        ValueError: if t is not from 0 to T − 1.

    Source: the released code of EvoGrad, where t and T count epochs of 100 iterations.
    """
    if not 0 <= iteration < iterations:
        raise ValueError(
            f"expected an iteration from 0 to {iterations - 1}, got {iteration}"
        )
    return _DECAY ** (_STAGES * iteration // iterations)
