"""The benchmark's split rule, and the file lists that it gives.

Class number i is in base if i % 2 == 0, in val if i % 4 == 1, and in novel if
i % 4 == 3, as in the code of feature-wise transformation (Tseng et al., ICLR 2020).
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

from l2l_evograd.experiments.crossdomain.data.archives.holdings import Classes
from l2l_evograd.experiments.crossdomain.data.archives.sources import Member
from l2l_evograd.experiments.crossdomain.data.filelists import SPLITS


def split_by_rule(classes: int) -> dict[str, list[int]]:
    """Return the numbers of the classes in "base", "val" and "novel".

    Args:
        classes: total number of classes.
    """
    return {
        "base": list(range(0, classes, 2)),
        "val": list(range(1, classes, 4)),
        "novel": list(range(3, classes, 4)),
    }


def shuffled(images: Sequence[Sequence[Member]]) -> list[list[Member]]:
    """Return the images of each class in a shuffled order, which is always the same.

    One ``random.Random(0)`` shuffles the classes by number. The benchmark's code does
    the same, but it starts from the order of the file system. Its order therefore
    differs from this one.
    """
    generator = random.Random(0)
    return [generator.sample(of_class, len(of_class)) for of_class in images]


def file_lists(
    classes: Classes, place: Callable[[int, Member], str]
) -> dict[str, dict[str, Any]]:
    """Return the contents of the JSON files of "base", "val" and "novel".

    Args:
        classes: the classes; their numbers become the labels.
        place: maps a class number and an image to the path for the list.
    """
    splits = classes.splits or split_by_rule(len(classes.label_names))
    lists = {}
    for split in SPLITS:
        images = [(i, image) for i in splits[split] for image in classes.images[i]]
        lists[split] = {
            "label_names": classes.label_names,
            "image_names": [place(i, image) for i, image in images],
            "image_labels": [i for i, _ in images],
        }
    return lists
