"""Vectors that heads and classifiers compute from an encoder's feature maps."""

from torch import Tensor
from torch.nn import functional as F

# Feature maps with more numbers than this are averaged over their pixels, because
# squared distances grow with the dimension and sharpen the soft-max.
LARGEST_EMBEDDING = 2048


def embedded(maps: Tensor) -> Tensor:
    """Return one vector for each image, shape (N, :func:`embedded_width`).

    The vector is the flattened feature map, or its average over the pixels if the map
    has more than 2,048 numbers. At the image sizes of the cross-domain benchmark, the
    vectors are those of its encoders: 64 x 5 x 5 numbers for Conv4 and Conv6 at 84
    pixels, and 512 averages for a ResNet at 224 pixels.

    Args:
        maps: feature maps, shape (N, C, h, w).
    """
    flat = maps.flatten(1)
    if flat.shape[1] <= LARGEST_EMBEDDING:
        return flat
    return averaged(maps)


def embedded_width(channels: int, size: int) -> int:
    """Return the length of the vector that :func:`embedded` returns for a map.

    Args:
        channels: C.
        size: h = w.
    """
    numbers = channels * size * size
    return numbers if numbers <= LARGEST_EMBEDDING else channels


def averaged(maps: Tensor) -> Tensor:
    """Return feature maps averaged over their pixels, shape (N, C)."""
    return maps.mean((-2, -1))


def class_means(features: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Return the mean of ``features`` over each class, shape (ways, ...)."""
    belongs = F.one_hot(labels, ways).to(features.dtype)
    shares = belongs / belongs.sum(0, keepdim=True)
    means = shares.T @ features.flatten(1)
    return means.view(ways, *features.shape[1:])
