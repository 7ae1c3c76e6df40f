"""The data set ``places``: the training images of Places365-Standard.

``places365standard_easyformat.tar`` contains::

    places365_standard/train/<class>/00000001.jpg

The alternative ``train_256_places365standard.tar`` contains::

    data_256/<letter>/<class>/00000001.jpg

In the alternative, a class may be two folders deep, such as
``data_256/a/apartment_building/outdoor``. The class then gets its name in the first
archive, ``apartment_building-outdoor``. ``train_large_places365standard.tar`` has
``data_large`` in place of ``data_256``.

There are 365 classes, sorted. The first 200 images of each class by sorted name are
taken.
"""

from l2l_evograd.experiments.crossdomain.data.archives.holdings import (
    Classes,
    Collector,
    Holdings,
)
from l2l_evograd.experiments.crossdomain.data.archives.layout import Counts, Layout

_MOST = 200
_BY_LETTER = ("data_256", "data_large")


def _read(holdings: Holdings) -> Classes:
    collected = Collector()
    for image in holdings.images:
        label = _label(image.parts)
        if label is not None:
            collected.add(label, image)
    return collected.classes()


def _label(parts: tuple[str, ...]) -> str | None:
    """Return the class of an image, or None if it is not a training image."""
    if parts[-3:-2] == ("train",):
        return parts[-2]
    for folder in _BY_LETTER:
        if folder in parts:
            letter, *names = parts[parts.index(folder) + 1 : -1] or ("",)
            if len(letter) == 1 and names:
                return "-".join(names)
    return None


PLACES = Layout(
    name="places",
    expected=(
        "places365standard_easyformat.tar with places365_standard/train/<class>/*.jpg, "
        "or train_256_places365standard.tar with data_256/<letter>/<class>/*.jpg"
    ),
    read=_read,
    counts=Counts(classes=365, least=_MOST),
    most=_MOST,
)
