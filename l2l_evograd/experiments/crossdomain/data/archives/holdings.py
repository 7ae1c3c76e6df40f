"""The contents of all archives of a data set, and its images class by class."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.crossdomain.data.archives.sources import Member, Source

_SHOWN = 5


class Classes(NamedTuple):
    """The classes of a data set.

    Attributes:
        label_names: names of all classes, in the order of their numbers.
        images: images of each class.
        splits: maps "base", "val" and "novel" to the numbers of their classes; None:
            the rule of :mod:`~l2l_evograd.experiments.crossdomain.data.archives.splits`
            applies.
    """

    label_names: list[str]
    images: list[list[Member]]
    splits: Mapping[str, list[int]] | None = None


class Annotation(NamedTuple):
    """A file with information about the images.

    Attributes:
        source: source that contains the file.
        name: path below the top, with "/".
        content: content of the file.
    """

    source: Source
    name: str
    content: bytes

    def lines(self) -> list[str]:
        """Return the lines that are not empty.

        Raises:
            InputError: if the file is not text.
        """
        try:
            text = self.content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise self.wrong("it is not text in UTF-8") from error
        return [line.strip() for line in text.splitlines() if line.strip()]

    def wrong(self, what: str) -> InputError:
        """Return an error that names the file and its fault ``what``."""
        return InputError(f"{self.name} of {self.source.path} cannot be used: {what}")

    def not_there(self, image: str) -> InputError:
        """Return an error for an image that the file lists but that is missing."""
        return InputError(
            f"{self.name} of {self.source.path} lists {image}, which is not among the "
            f"images; give the whole data set, or download it again"
        )


class Holdings:
    """The contents of all sources of a data set.

    Args:
        sources: sources that have been scanned.

    Attributes:
        images: images of all sources.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self.images = [image for source in sources for image in source.images]

    def has(self, file: str) -> bool:
        """Return whether there is an annotation with this name in any folder."""
        return any(
            PurePosixPath(name).name == file
            for source in self._sources
            for name in source.annotations
        )

    def annotation(self, file: str, held_by: str) -> Annotation:
        """Return the annotation with this name.

        Args:
            file: name of the file, without folders.
            held_by: name of the archive that contains the file, for messages.

        Raises:
            InputError: if there is no such annotation, or more than one.
        """
        found = [
            Annotation(source, name, content)
            for source in self._sources
            for name, content in source.annotations.items()
            if PurePosixPath(name).name == file
        ]
        if not found:
            raise self.missing(
                f"{file} from {held_by} (give each archive with --archive)"
            )
        if len(found) > 1:
            places = " and ".join(f"{one.name} of {one.source.path}" for one in found)
            raise InputError(f"expected {file} once, found {places}; give one of them")
        return found[0]

    def missing(self, what: str) -> InputError:
        """Return an error that names what was expected and what was found."""
        found = "; ".join(
            f"{_few(source.top)} at the top of {source.path}"
            for source in self._sources
        )
        return InputError(f"expected {what}; found {found}")


class Collector:
    """Collects images by class. A class has each file name only once."""

    def __init__(self) -> None:
        self._classes: dict[str, dict[str, Member]] = {}

    def add(self, label: str, image: Member) -> None:
        """Add an image of the class ``label``.

        Raises:
            InputError: if the class already has another file with the same name.
        """
        held = self._classes.setdefault(label, {}).setdefault(image.file, image)
        if held != image:
            raise InputError(
                f"expected one image {image.file} of the class {label!r}, found "
                f"{held.name} of {held.source.path} and {image.name} of "
                f"{image.source.path}; give each archive once"
            )

    @property
    def labels(self) -> list[str]:
        """The names of the classes, sorted."""
        return sorted(self._classes)

    def images(self, label: str) -> list[Member]:
        """Return the images of a class, sorted by file name."""
        files = self._classes.get(label, {})
        return [files[file] for file in sorted(files)]

    def classes(self, label_names: Sequence[str] | None = None) -> Classes:
        """Return the classes.

        Args:
            label_names: names of the classes in their order; None: sorted names.
        """
        names = list(self.labels if label_names is None else label_names)
        return Classes(names, [self.images(name) for name in names])


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) or "nothing"
    left = len(names) - _SHOWN
    return f"{shown} and {left} more" if left > 0 else shown
