"""Descriptions of data sets: the contents of their archives and the expected counts."""

from collections.abc import Callable
from dataclasses import dataclass

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.crossdomain.data.archives.holdings import Classes, Holdings
from l2l_evograd.experiments.crossdomain.data.archives.splits import shuffled
from l2l_evograd.experiments.crossdomain.data.filelists import SPLITS


@dataclass(frozen=True)
class Counts:
    """The counts of a whole data set, before anything is left out.

    Attributes:
        classes: total number of classes.
        images: total number of images; None if it is not known.
        least: smallest number of images of a class.
        splits: numbers of classes in base, val and novel; None if the archive does not
            define the splits.
    """

    classes: int
    images: int | None = None
    least: int = 1
    splits: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Layout:
    """A data set of the benchmark.

    Attributes:
        name: name of its folder, also used on the command line.
        expected: the archives and their contents, for messages.
        annotations: names, without folders, of the files that ``read`` needs.
        read: function that finds the classes and their images.
        counts: counts that the data set must have.
        largest: number of classes to take, from the first on; None: all.
        most: number of images of a class to take, the first ones by name; None: all.
    """

    name: str
    expected: str
    read: Callable[[Holdings], Classes]
    counts: Counts
    annotations: frozenset[str] = frozenset()
    largest: int | None = None
    most: int | None = None

    def classes(self, holdings: Holdings) -> Classes:
        """Return the classes to take, with their images in the order of the lists.

        Raises:
            InputError: if the holdings are not this data set, or are incomplete.
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
            raise InputError(
                f"expected {counts.classes:,} classes{wanted} in {self.name}, found "
                f"{len(found.images):,} classes and {images:,} images; {advice}"
            )
        for name, of_class in zip(found.label_names, found.images, strict=True):
            if len(of_class) < counts.least:
                raise InputError(
                    f"expected at least {counts.least} images of every class of "
                    f"{self.name}, found {len(of_class)} of {name!r}; {advice}"
                )
        if counts.splits is not None and found.splits is not None:
            sizes = tuple(len(found.splits[split]) for split in SPLITS)
            if sizes != counts.splits:
                raise InputError(
                    f"expected {_listed(counts.splits)} classes in base, val and novel "
                    f"of {self.name}, found {_listed(sizes)}; {advice}"
                )


def _listed(sizes: tuple[int, ...]) -> str:
    return ", ".join(str(size) for size in sizes)
