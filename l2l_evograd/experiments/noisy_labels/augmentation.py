"""Random shifts and mirror images, drawn for each image of a batch."""

import torch
from torch import Tensor


class ShiftAndMirror:
    """Reflect images at the edges, crop at a random place, and mirror half of them.

    Args:
        padding: largest shift in pixels, less than the images' side.
        mirror: whether to mirror images.

    Source: Shu et al., "Meta-Weight-Net", NeurIPS 2019, and their code, which shifts
    by 4 pixels.
    """

    def __init__(self, padding: int = 4, mirror: bool = True) -> None:
        self.padding = padding
        self.mirror = mirror

    def __call__(self, images: Tensor) -> Tensor:
        """Return changed images with the same shape (N, C, H, W) and dtype.

        The changes are drawn from the CPU's global generator on every device.
        """
        count, _, height, width = images.shape
        shifts = torch.randint(-self.padding, self.padding + 1, (2, count, 1))
        rows = _reflected(torch.arange(height) + shifts[0], height)
        columns = _reflected(torch.arange(width) + shifts[1], width)
        if self.mirror:
            mirrored = torch.rand(count, 1) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        each = torch.arange(count)[:, None, None]
        places = (each, rows[:, :, None], columns[:, None, :])
        numbers, down, across = (place.to(images.device) for place in places)
        return images[numbers, :, down, across].permute(0, 3, 1, 2).contiguous()


def _reflected(places: Tensor, size: int) -> Tensor:
    """Return positions between 0 and ``size`` − 1, mirrored at both ends."""
    places = places.abs()
    return torch.where(places >= size, 2 * (size - 1) - places, places)
