"""The data set ``cars``: the training images of Stanford Cars.

There are two archives. ``cars_train.tgz`` contains::

    cars_train/00001.jpg

``car_devkit.tgz`` contains::

    devkit/cars_train_annos.mat    annotations: struct array, fields fname, class, ...
    devkit/cars_meta.mat           class_names: cell array

There are 196 classes and 8,144 images. The classes are in the order of ``class_names``,
as in the benchmark's code. This order is not quite alphabetical.
"""

import struct
from typing import Any

from l2l_evograd.experiments.crossdomain.data.archives.holdings import (
    Annotation,
    Classes,
    Collector,
    Holdings,
)
from l2l_evograd.experiments.crossdomain.data.archives.layout import Counts, Layout
from l2l_evograd.experiments.crossdomain.data.archives.matlab import read_matlab

_IMAGES, _ANNOTATIONS, _META = "cars_train", "cars_train_annos.mat", "cars_meta.mat"
_KIT = "car_devkit.tgz"


def _read(holdings: Holdings) -> Classes:
    listing = holdings.annotation(_ANNOTATIONS, _KIT)
    meta = holdings.annotation(_META, _KIT)
    images = {
        image.file: image
        for image in holdings.images
        if image.parts[-2:-1] == (_IMAGES,)
    }
    if not images:
        raise holdings.missing(
            f"{_IMAGES}/*.jpg from cars_train.tgz (give each archive with --archive)"
        )
    names = _names(meta)
    records = _variable(listing, "annotations")
    collected = Collector()
    for record in records:
        file, number = _record(listing, record)
        if file not in images:
            raise listing.not_there(file)
        if not 1 <= number <= len(names):
            raise listing.wrong(
                f"expected classes from 1 to {len(names)}, got {number} for {file}"
            )
        collected.add(names[number - 1], images[file])
    return collected.classes(names)


def _names(meta: Annotation) -> list[str]:
    names = _variable(meta, "class_names")
    if not all(isinstance(name, str) for name in names):
        raise meta.wrong("its class_names are not all texts")
    return names


def _record(listing: Annotation, record: Any) -> tuple[str, int]:
    """Return the file and the class of an annotation."""
    if not isinstance(record, dict) or not {"fname", "class"} <= set(record):
        raise listing.wrong("its annotations have no fields fname and class")
    file, number = record["fname"], record["class"]
    if not isinstance(file, str):
        raise listing.wrong(f"expected names of files, got {repr(file)[:80]}")
    # A cell is not a number.
    if not isinstance(number, tuple) or len(number) != 1 or number[0] % 1:
        raise listing.wrong(f"expected a class for {file}, got {repr(number)[:80]}")
    return file, int(number[0])


def _variable(annotation: Annotation, name: str) -> list[Any]:
    """Return a cell array or a struct array of a MATLAB file, or its only value."""
    try:
        variables = read_matlab(annotation.content)
    except (ValueError, struct.error, OverflowError) as error:
        raise annotation.wrong(
            f"it cannot be read as a MATLAB file ({error})"
        ) from error
    if name not in variables:
        raise annotation.wrong(f"it has no variable {name}")
    value = variables[name]
    return value if isinstance(value, list) else [value]


CARS = Layout(
    name="cars",
    expected=(
        "cars_train.tgz with cars_train/*.jpg and car_devkit.tgz with "
        "devkit/cars_train_annos.mat and devkit/cars_meta.mat"
    ),
    read=_read,
    counts=Counts(classes=196, images=8_144),
    annotations=frozenset({_ANNOTATIONS, _META}),
)
