"""The network of all methods: learn2learn's convolutional blocks and a linear layer."""

import torch
from torch import Tensor, nn

from l2l_evograd.experiments.from_learn2learn import ConvBase


class FewShotNet(nn.Module):
    """Four convolutional blocks with stride 2, and a linear layer.

    Batch normalisation always uses the statistics of the batch, as in MAML's code for
    Omniglot. So predictions for query images depend on the other query images: the
    classification is transductive.

    Args:
        ways: number of classes.
        channels: number of channels of the images.
        image_size: side of the images, in pixels.
        hidden: number of channels of each block.

    Attributes:
        body: maps images to features, shape (N, features).
        head: maps features to scores, shape (N, ways).
    """

    def __init__(self, ways: int, channels: int, image_size: int, hidden: int) -> None:
        super().__init__()
        blocks = ConvBase(hidden=hidden, channels=channels, max_pool=False, layers=4)
        for module in blocks.modules():
            if isinstance(module, nn.BatchNorm2d):
                _use_the_batch(module)
        self.body = nn.Sequential(blocks, nn.Flatten())
        with torch.no_grad():
            features = self.body(torch.zeros(2, channels, image_size, image_size))
        self.head = nn.Linear(features.shape[1], ways)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores, shape (N, ways)."""
        scores: Tensor = self.head(self.body(images))
        return scores


def _use_the_batch(norm: nn.BatchNorm2d) -> None:
    """Remove running statistics, which evaluation mode would use."""
    norm.track_running_stats = False
    norm.running_mean = norm.running_var = norm.num_batches_tracked = None
