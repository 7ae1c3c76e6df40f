"""The benchmark's split rule, and the file lists that come of it.

Class number i is in base if i % 2 == 0, in val if i % 4 == 1, in novel if i % 4 == 3;
so in the code of feature-wise transformation (Tseng et al., ICLR 2020).
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

from l2l_evograd.fewshot.archives.holdings import Classes
from l2l_evograd.fewshot.archives.sources import Member
from l2l_evograd.fewshot.domains import SPLITS


def split_by_rule(classes: int) -> dict[str, list[int]]:
    """Return "base", "val" and "novel" -> numbers of its classes, of so many."""
    return {
        "base": list(range(0, classes, 2)),
        "val": list(range(1, classes, 4)),
        "novel": list(range(3, classes, 4)),
    }


def shuffled(images: Sequence[Sequence[Member]]) -> list[list[Member]]:
    """Return the images of each class in another order, always the same.

    One ``random.Random(0)`` goes through the classes by number. The benchmark's code
    does likewise, but from the order of the file system; so its order is not ours.
    """
    generator = random.Random(0)
    return [generator.sample(of_class, len(of_class)) for of_class in images]


def file_lists(
    classes: Classes, place: Callable[[int, Member], str]
) -> dict[str, dict[str, Any]]:
    """Return "base", "val" and "novel" -> what its JSON file holds.

    Args:
        classes: the labels are their numbers.
        place: (class, image) -> its path as the list shall have it.
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
