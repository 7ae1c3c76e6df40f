"""The data set ``plantae``: the plants of iNaturalist 2018.

``train_val2018.tar.gz`` (120 GB) contains::

    train_val2018/Plantae/<category>/*.jpg

The alternative ``plantae.tar.gz`` contains only ``Plantae/<category>/*.jpg``.
Categories are numbers. There are 2,917 categories with 127,551 images (118,800 for
training and 8,751 for validation, according to the page of the data set).

The benchmark takes the 200 categories with the most images. Its code lists the folders
in the order of the file system and sorts them by count, so its splits depend on the
machine. Here, classes are sorted by number of images, the largest first, and then by
category number. Class i of this order has the number i. At most 600 images of each
class are taken, the first ones by sorted name. The names are random, so these images
are a random subset.
"""

from l2l_evograd.experiments.crossdomain.data.archives.holdings import (
    Classes,
    Collector,
    Holdings,
)
from l2l_evograd.experiments.crossdomain.data.archives.layout import Counts, Layout


def _read(holdings: Holdings) -> Classes:
    collected = Collector()
    for image in holdings.images:
        if image.parts[-3:-2] == ("Plantae",):
            collected.add(image.parts[-2], image)
    by_size = sorted(
        collected.labels, key=lambda name: (-len(collected.images(name)), _order(name))
    )
    return collected.classes(by_size)


def _order(category: str) -> tuple[bool, int, str]:
    """Return a sort key that sorts numbers by value, and before names."""
    number = int(category) if category.isdecimal() else 0
    return not category.isdecimal(), number, category


PLANTAE = Layout(
    name="plantae",
    expected=(
        "train_val2018.tar.gz of iNaturalist 2018 with "
        "train_val2018/Plantae/<category>/*.jpg"
    ),
    read=_read,
    counts=Counts(classes=2_917, images=127_551),
    largest=200,
    most=600,
)
