"""Random changes of training photographs: cropping, colour jitter and mirroring."""

from torch import Tensor
from torchvision.transforms import v2

# Largest difference of the factors of brightness, contrast and saturation from 1.
JITTER = 0.4


class Augmentation:
    """Crops a random part of an image, jitters its colours, and may mirror it.

    The part has 8 to 100 % of the area and sides in a ratio of 3:4 to 4:3, and is
    resized to a square. Brightness, contrast and saturation are multiplied by factors
    between 0.6 and 1.4, in random order. Half of the images are mirrored.

    Args:
        image_size: side of the returned image, in pixels.

    Source: the settings of Tseng et al., ICLR 2020, and their code, which jitters the
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

        The changes are drawn from torch's global generator on the CPU. The same seed
        gives the same changes.

        Args:
            image: shape (3, H, W), dtype uint8; it is not changed.
        """
        changed: Tensor = self._steps(image)
        return changed
