"""All that the archives of a data set hold together, and its images class by class."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from l2l_evograd.fewshot.archives.sources import Member, Source

_SHOWN = 5


class Classes(NamedTuple):
    """The classes of a data set.

    Attributes:
        label_names: names of all classes, in the order of their numbers.
        images: of each of them.
        splits: "base", "val" and "novel" -> numbers of its classes; None: by the rule
            of :mod:`~l2l_evograd.fewshot.archives.splits`.
    """

    label_names: list[str]
    images: list[list[Member]]
    splits: Mapping[str, list[int]] | None = None


class Annotation(NamedTuple):
    """A file that says something about the images.

    Attributes:
        source: that it is in.
        name: path below the top, with "/".
        content: what it holds.
    """

    source: Source
    name: str
    content: bytes

    def lines(self) -> list[str]:
        """Return the lines, without those that are empty.

        Raises:
            ValueError: if it is no text.
        """
        try:
            text = self.content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise self.wrong("it is not text in UTF-8") from error
        return [line.strip() for line in text.splitlines() if line.strip()]

    def wrong(self, what: str) -> ValueError:
        """Return an error that names the file and says ``what`` is wrong with it."""
        return ValueError(f"{self.name} of {self.source.path} cannot be used: {what}")

    def not_there(self, image: str) -> ValueError:
        """Return an error for an image that the file lists."""
        return ValueError(
            f"{self.name} of {self.source.path} lists {image}, which is not among the "
            f"images; give the whole data set, or download it again"
        )


class Holdings:
    """What all the sources hold together.

    Args:
        sources: scanned already.

    Attributes:
        images: of all of them.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self.images = [image for source in sources for image in source.images]

    def has(self, file: str) -> bool:
        """Say whether there is an annotation of that name, in whatever folder."""
        return any(
            PurePosixPath(name).name == file
            for source in self._sources
            for name in source.annotations
        )

    def annotation(self, file: str, held_by: str) -> Annotation:
        """Return the annotation of that name.

        Args:
            file: its name without folders.
            held_by: the archive that people download it in.

        Raises:
            ValueError: if there is none, or more than one.
        """
        found = [
            Annotation(source, name, content)
            for source in self._sources
            for name, content in source.annotations.items()
            if PurePosixPath(name).name == file
        ]
        if not found:
            raise self.missing(
                f"{file}, which {held_by} holds (give each archive with --archive)"
            )
        if len(found) > 1:
            places = " and ".join(f"{one.name} of {one.source.path}" for one in found)
            raise ValueError(f"expected {file} once, found {places}; give one of them")
        return found[0]

    def missing(self, what: str) -> ValueError:
        """Return an error that says what was looked for and what was found."""
        found = "; ".join(
            f"{_few(source.top)} at the top of {source.path}"
            for source in self._sources
        )
        return ValueError(f"expected {what}; found {found}")


class Collector:
    """Images by class, each file of a class once."""

    def __init__(self) -> None:
        self._classes: dict[str, dict[str, Member]] = {}

    def add(self, label: str, image: Member) -> None:
        """Add an image of the class ``label``.

        Raises:
            ValueError: if the class has a file of that name already.
        """
        held = self._classes.setdefault(label, {}).setdefault(image.file, image)
        if held != image:
            raise ValueError(
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
            label_names: their order; None: sorted.
        """
        names = list(self.labels if label_names is None else label_names)
        return Classes(names, [self.images(name) for name in names])


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) or "nothing"
    left = len(names) - _SHOWN
    return f"{shown} and {left} more" if left > 0 else shown
