"""What is known of a data set: what its archives hold, and how many of what."""

from collections.abc import Callable
from dataclasses import dataclass

from l2l_evograd.fewshot.archives.holdings import Classes, Holdings
from l2l_evograd.fewshot.archives.splits import shuffled
from l2l_evograd.fewshot.domains import SPLITS


@dataclass(frozen=True)
class Counts:
    """How much a data set holds before anything is left out.

    Attributes:
        classes: in all.
        images: in all; None where only the least number is known.
        least: images of every class.
        splits: classes of base, val and novel, where the archive says which they are.
    """

    classes: int
    images: int | None = None
    least: int = 1
    splits: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Layout:
    """A data set of the benchmark.

    Attributes:
        name: of its folder and on the command line.
        expected: the archives and what is in them, for messages.
        annotations: names, without folders, of the files that ``read`` asks for.
        read: finds the classes and their images.
        counts: that it must have.
        largest: the number of classes taken, from the first; None: all.
        most: the number of images of a class taken, the first by name; None: all.
    """

    name: str
    expected: str
    read: Callable[[Holdings], Classes]
    counts: Counts
    annotations: frozenset[str] = frozenset()
    largest: int | None = None
    most: int | None = None

    def classes(self, holdings: Holdings) -> Classes:
        """Return the classes that are taken, with their images in the lists' order.

        Raises:
            ValueError: if the holdings are not this data set, or not all of it.
        """
        found = self.read(holdings)
        if not any(found.images):
            raise holdings.missing(self.expected)
        self._check(found)
        images = [of_class[: self.most] for of_class in found.images[: self.largest]]
        names = found.label_names[: self.largest]
        return Classes(names, shuffled(images), found.splits)

    def _check(self, found: Classes) -> None:
        counts, advice = self.counts, "give the whole data set, or download it again"
        images = sum(len(of_class) for of_class in found.images)
        all_images = images if counts.images is None else counts.images
        if (len(found.images), images) != (counts.classes, all_images):
            wanted = "" if counts.images is None else f" and {counts.images:,} images"
            raise ValueError(
                f"expected {counts.classes:,} classes{wanted} in {self.name}, found "
                f"{len(found.images):,} classes and {images:,} images; {advice}"
            )
        for name, of_class in zip(found.label_names, found.images, strict=True):
            if len(of_class) < counts.least:
                raise ValueError(
                    f"expected {counts.least} images or more of every class of "
                    f"{self.name}, found {len(of_class)} of {name!r}; {advice}"
                )
        if counts.splits is not None and found.splits is not None:
            sizes = tuple(len(found.splits[split]) for split in SPLITS)
            if sizes != counts.splits:
                raise ValueError(
                    f"expected {_listed(counts.splits)} classes in base, val and novel "
                    f"of {self.name}, found {_listed(sizes)}; {advice}"
                )


def _listed(sizes: tuple[int, ...]) -> str:
    return ", ".join(str(size) for size in sizes)
