"""The data set ``miniImagenet``: miniImageNet.

``mini_imagenet_full_size.tar.bz2`` contains::

    mini_imagenet_full_size/{train,val,test}/<class>/*

The other form has tables: an archive or folder with ``images/`` and ``train.csv``,
``val.csv``, ``test.csv``, whose columns are ``filename`` (below ``images/``) and
``label``.

The data set defines the splits: 64 classes in base (train), 16 in val and 20 in novel
(test). Each class has 600 images. The classes of base come first and those of novel
last; within a split, classes are sorted. The labels of base are therefore 0 to 63.
"""

import csv
from collections.abc import Iterator

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.crossdomain.data.archives.holdings import (
    Classes,
    Collector,
    Holdings,
)
from l2l_evograd.experiments.crossdomain.data.archives.layout import Counts, Layout
from l2l_evograd.experiments.crossdomain.data.archives.sources import Member

_SPLITS = {"base": "train", "val": "val", "novel": "test"}
_COLUMNS = ["filename", "label"]


def _read(holdings: Holdings) -> Classes:
    tables = any(holdings.has(f"{given}.csv") for given in _SPLITS.values())
    label_names: list[str] = []
    images: list[list[Member]] = []
    splits = {}
    for split, given in _SPLITS.items():
        collected = Collector()
        found = _listed(holdings, given) if tables else _in_folder(holdings, given)
        for label, image in found:
            collected.add(label, image)
        for label in collected.labels:
            if label in label_names:
                raise InputError(
                    f"expected every class in only one split, found {label!r} in "
                    f"{given} and in another split; give one copy of the data set"
                )
        first = len(label_names)
        label_names += collected.labels
        images += collected.classes().images
        splits[split] = list(range(first, len(label_names)))
    return Classes(label_names, images, splits)


def _in_folder(holdings: Holdings, given: str) -> Iterator[tuple[str, Member]]:
    for image in holdings.images:
        if image.parts[-3:-2] == (given,):
            yield image.parts[-2], image


def _listed(holdings: Holdings, given: str) -> Iterator[tuple[str, Member]]:
    table = holdings.annotation(f"{given}.csv", "the archive with the tables")
    images = {_below_images(image.parts): image for image in holdings.images}
    rows = csv.reader(table.lines(), skipinitialspace=True)
    columns = [name.strip() for name in next(rows, [])]
    if columns != _COLUMNS:
        raise table.wrong(f"expected the columns filename,label, got {columns}")
    for row in rows:
        if len(row) != len(_COLUMNS):
            raise table.wrong(f"line {rows.line_num} has {len(row)} columns, not 2")
        file, label = (value.strip() for value in row)
        if file not in images:
            raise table.not_there(f"images/{file}")
        yield label, images[file]


def _below_images(parts: tuple[str, ...]) -> str:
    """Return the path below the last folder named images, or else the whole path."""
    above = parts[::-1].index("images") if "images" in parts else len(parts)
    return "/".join(parts[len(parts) - above :])


MINI_IMAGENET = Layout(
    name="miniImagenet",
    expected=(
        "mini_imagenet_full_size.tar.bz2 with "
        "mini_imagenet_full_size/{train,val,test}/<class>/*, or images/ with "
        "train.csv, val.csv and test.csv"
    ),
    read=_read,
    counts=Counts(classes=100, images=60_000, least=600, splits=(64, 16, 20)),
    annotations=frozenset(f"{given}.csv" for given in _SPLITS.values()),
)
