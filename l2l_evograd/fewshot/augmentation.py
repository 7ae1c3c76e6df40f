"""Photographs changed at random for training: cut, colours shaken, mirrored."""

from torch import Tensor
from torchvision.transforms import v2

# How far brightness, contrast and saturation may go from 1, either way.
JITTER = 0.4


class Augmentation:
    """A random part of an image, its colours shaken, mirrored or not.

    The part has 8 to 100 % of the area and sides in a ratio of 3:4 to 4:3, and is
    resized to a square. Brightness, contrast and saturation are multiplied by factors
    between 0.6 and 1.4, in an order drawn as well. Half of the images are mirrored.

    Args:
        image_size: side of what is returned, in pixels.

    Source: the settings of Tseng et al., ICLR 2020, and their code, which shakes the
    colours in a fixed order. The transforms are torchvision's.
    """

    def __init__(self, image_size: int) -> None:
        self._steps = v2.Compose(
            [
                v2.RandomResizedCrop(image_size, antialias=True),
                v2.ColorJitter(JITTER, JITTER, JITTER),
                v2.RandomHorizontalFlip(),
            ]
        )

    def __call__(self, image: Tensor) -> Tensor:
        """Return a changed image, shape (3, image_size, image_size), dtype uint8.

        Draws from torch's global generator of the CPU; seed it for the same again.

        Args:
            image: shape (3, H, W), dtype uint8; it stays as it is.
        """
        changed: Tensor = self._steps(image)
        return changed
