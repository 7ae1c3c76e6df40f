"""The source of the images: files on disk, or the built-in glyphs."""

import torch
from rich.console import Console

from l2l_evograd.data.folders import given_path
from l2l_evograd.data.glyphs import CLASSES, GlyphSplit
from l2l_evograd.experiments.noisy_labels.files import read_files
from l2l_evograd.experiments.noisy_labels.images import ImageSource, LabelledImages

# For the built-in glyphs: number of classes, side in pixels, and images of each class.
_CLASSES = 10
_SIZE = 20
_TRAIN_EACH, _TEST_EACH = 150, 60


def read_source(
    data: str | None, image_size: int | None, console: Console
) -> ImageSource:
    """Return the training and test images.

    Args:
        data: a folder with torchvision's CIFAR-10 or CIFAR-100 (the folder
            ``cifar-10-batches-py`` or ``cifar-100-python``, or the folder that
            contains it), or a folder with ``train/<class>`` and ``test/<class>``;
            None: the built-in glyphs.
        image_size: side in pixels; None: 32, or 20 for the glyphs.
        console: console for the progress bar.

    Raises:
        InputError: if files are missing; the message names the expected files.

    Cost: drawing the glyphs takes about four seconds.
    """
    if data is not None:
        return read_files(given_path(data), image_size or 32, console)
    sets = []
    for seed, each in enumerate((_TRAIN_EACH, _TEST_EACH)):
        drawn = GlyphSplit("print", "novel", image_size or _SIZE, seed, each)
        labels = torch.arange(_CLASSES).repeat_interleave(each)
        images = torch.stack([drawn.image(i) for i in range(len(labels))])
        sets.append(LabelledImages(images, labels))
    names = CLASSES["novel"][:_CLASSES]
    return ImageSource(
        "built-in glyphs", sets[0], sets[1], names, shift=0, mirrored=False
    )
