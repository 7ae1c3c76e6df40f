"""The data set ``cub``: photographs of birds from CUB-200-2011.

``CUB_200_2011.tgz`` contains::

    CUB_200_2011/images.txt           lines like "1 001.Black_footed_Albatross/A.jpg"
    CUB_200_2011/images/001.Black_footed_Albatross/*.jpg

There are 200 classes and 11,788 images. The classes are sorted by the names of their
folders, which begin with the numbers of the classes.
"""

from pathlib import PurePosixPath

from l2l_evograd.experiments.crossdomain.data.archives.holdings import (
    Classes,
    Collector,
    Holdings,
)
from l2l_evograd.experiments.crossdomain.data.archives.layout import Counts, Layout

_LISTING = "images.txt"


def _read(holdings: Holdings) -> Classes:
    listing = holdings.annotation(_LISTING, "CUB_200_2011.tgz")
    folder = listing.name.removesuffix(_LISTING) + "images/"
    images = {image.name: image for image in listing.source.images}
    collected = Collector()
    for line in listing.lines():
        # A line has the number of an image, then its path below images/.
        path = line.partition(" ")[2].strip()
        if folder + path not in images:
            raise listing.not_there(path or repr(line))
        collected.add(PurePosixPath(path).parent.name, images[folder + path])
    return collected.classes()


CUB = Layout(
    name="cub",
    expected=(
        "CUB_200_2011.tgz with CUB_200_2011/images.txt and "
        "CUB_200_2011/images/<class>/*.jpg"
    ),
    read=_read,
    counts=Counts(classes=200, images=11_788),
    annotations=frozenset({_LISTING}),
)
