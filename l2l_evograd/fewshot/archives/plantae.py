"""The plants of iNaturalist 2018 as ``plantae``.

``train_val2018.tar.gz`` (120 GB), in it::

    train_val2018/Plantae/<category>/*.jpg

or ``plantae.tar.gz``, which holds ``Plantae/<category>/*.jpg`` alone. Categories are
numbers. 2,917 of them with 127,551 images (118,800 for training, 8,751 for validation,
by the data set's own page).

The benchmark takes the 200 categories with the most images. Its code lists the folders
as the file system does and sorts by count, so which classes it splits where depends on
the machine. Here classes come by number of images, the largest first, and among equals
by category number; class i of that order has the number i. Of each, at most 600 images,
the first by sorted name; names are random, so these are a random part.
"""

from l2l_evograd.fewshot.archives.holdings import Classes, Collector, Holdings
from l2l_evograd.fewshot.archives.layout import Counts, Layout


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
    """Sort numbers as numbers, and before names."""
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
