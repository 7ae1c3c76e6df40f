"""The data set ``cars``: the training images of Stanford Cars.

There are two archives. ``cars_train.tgz`` contains::

    cars_train/00001.jpg

``car_devkit.tgz`` contains::

    devkit/cars_train_annos.mat    annotations: struct array, fields fname, class, ...
    devkit/cars_meta.mat           class_names: cell array

There are 196 classes and 8,144 images. The classes are in the order of ``class_names``,
as in the benchmark's code. This order is not quite alphabetical.
"""

import io
import struct
import zlib
from typing import Any

import numpy as np

from l2l_evograd.experiments.crossdomain.data.archives.holdings import (
    Annotation,
    Classes,
    Collector,
    Holdings,
)
from l2l_evograd.experiments.crossdomain.data.archives.layout import Counts, Layout

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
    names = [str(name) for name in _variable(meta, "class_names")]
    records = _variable(listing, "annotations")
    if not {"fname", "class"} <= set(records.dtype.names or ()):
        raise listing.wrong("its annotations have no fields fname and class")
    collected = Collector()
    for file, number in zip(records["fname"], records["class"], strict=True):
        if str(file) not in images:
            raise listing.not_there(str(file))
        if not 1 <= int(number) <= len(names):
            raise listing.wrong(
                f"expected classes from 1 to {len(names)}, got {number} for {file}"
            )
        collected.add(names[int(number) - 1], images[str(file)])
    return collected.classes(names)


def _variable(annotation: Annotation, name: str) -> Any:
    """Return a variable of a MATLAB file as a one-dimensional array."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        variables = loadmat(io.BytesIO(annotation.content), squeeze_me=True)
    except (
        # Errors of loadmat for files that are of another type, cut short or damaged.
        *(MatReadError, ValueError, TypeError, NotImplementedError, OSError),
        *(LookupError, struct.error, zlib.error),
    ) as error:
        raise annotation.wrong(
            f"it cannot be read as a MATLAB file ({error})"
        ) from error
    if name not in variables:
        raise annotation.wrong(f"it has no variable {name}")
    return np.atleast_1d(variables[name])


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
