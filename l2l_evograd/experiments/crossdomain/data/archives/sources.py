"""Sources of images: the base class of archives, and unpacked folders.

A source is read twice from beginning to end: once to find its files, and once to read
the wanted images. The larger archives are compressed as a whole, so an image can only
be read after all files before it.
"""

import abc
import contextlib
import functools
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from rich.progress import Progress

from l2l_evograd.checks import InputError
from l2l_evograd.data.folders import looking_at, walked
from l2l_evograd.data.regular_files import open_regular
from l2l_evograd.data.zipped import check_size
from l2l_evograd.experiments.crossdomain.data.archives.names import (
    is_image,
    member_parts,
)

# The largest annotations of the data sets have 2 MB, and the largest photographs 10 MB.
LARGEST_ANNOTATION = 2**24
LARGEST_IMAGE = 2**28

# Places365, the largest data set, has 1.8 million files, whose names take 0.1 GB.
MOST_FILES = 4_000_000
MOST_LETTERS = 2**29


class Entry(NamedTuple):
    """A file in a source.

    Attributes:
        name: path below the top, with "/".
        size: size in bytes; None in a folder, because its files are not unpacked.
        read: function that returns the content of the file.
    """

    name: str
    size: int | None
    read: Callable[[], bytes]


class Member(NamedTuple):
    """An image in a source.

    Attributes:
        source: source that contains the image.
        name: path below the top, with "/".
        size: size in bytes; None if the image is not unpacked.
    """

    source: "Source"
    name: str
    size: int | None

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the path."""
        return PurePosixPath(self.name).parts

    @property
    def file(self) -> str:
        """The name of the file, without folders."""
        return self.name.rpartition("/")[2]


class Source(abc.ABC):
    """An archive, or a folder.

    Args:
        path: path of the archive or folder.

    Attributes:
        path: as given.
        images: all files that are images by their names; filled by :meth:`scan`.
        annotations: maps the paths of the annotation files to their contents.
        top: names at the top of the source, in the order of the source.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images: list[Member] = []
        self.annotations: dict[str, bytes] = {}
        self.top: list[str] = []
        self._annotations: frozenset[str] = frozenset()

    def scan(self, annotations: Collection[str], progress: Progress) -> None:
        """Find the images and read the annotations.

        Args:
            annotations: names of the annotation files, without folders.
            progress: progress bar.

        Cost: reads the archive once, 0.2 ms or more for each file in a tar; memory of
            0.4 kB for each image. For the 1.8 million images of Places, this is minutes
            and 0.7 GB.

        Raises:
            InputError: if the source is damaged, contains a link or an unsafe name, or
                is far larger than any of the data sets.
        """
        top = {}
        files = letters = 0
        self._annotations = frozenset(annotations)
        with self._reading():
            for entry in self._entries(progress, f"reading {self.path.name}"):
                parts = member_parts(entry.name, self.path)
                files, letters = files + 1, letters + len(entry.name)
                if files > MOST_FILES or letters > MOST_LETTERS:
                    raise InputError(
                        f"expected at most {MOST_FILES:,} files in {self.path}, got "
                        f"more, or far too long names; give the archive of the data set"
                    )
                if not parts:
                    continue
                top[parts[min(self._top_level, len(parts) - 1)]] = True
                name = "/".join(parts)
                if parts[-1] in annotations:
                    if name in self.annotations:
                        raise self._twice(name)
                    check_size(self.path, name, entry.size or 0, LARGEST_ANNOTATION)
                    self.annotations[name] = entry.read()
                elif is_image(parts[-1]):
                    check_size(self.path, name, entry.size or 0, LARGEST_IMAGE)
                    self.images.append(Member(self, name, entry.size))
        self.top = list(top)

    def contents(
        self, wanted: Collection[str], progress: Progress
    ) -> Iterator[tuple[str, bytes]]:
        """Yield names and contents of the wanted files, in the order of the source.

        Args:
            wanted: names of files, as in :attr:`images`.
            progress: progress bar.

        Raises:
            InputError: if the archive is damaged, or contains a wanted file twice.
        """
        seen = set()
        with self._reading():
            for entry in self._entries(progress, f"unpacking {self.path.name}"):
                name = "/".join(member_parts(entry.name, self.path))
                if name in wanted:
                    if name in seen:
                        raise self._twice(name)
                    seen.add(name)
                    check_size(self.path, name, entry.size or 0, LARGEST_IMAGE)
                    yield name, entry.read()

    def _twice(self, name: str) -> InputError:
        return InputError(
            f"expected every file of {self.path} once, found {name!r} twice; get the "
            f"archive from another source"
        )

    # Number of folders above "the top".
    _top_level = 0

    @abc.abstractmethod
    def _entries(self, progress: Progress, description: str) -> Iterator[Entry]:
        """Yield the files, always in the same order."""

    @abc.abstractmethod
    def _reading(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that turns errors of reading into InputError."""


class FolderSource(Source):
    """A folder to which an archive was unpacked, or a folder inside it.

    Names of files begin with the name of the folder. The user can therefore give the
    folder ``cars_train`` or the folder above it.
    """

    _top_level = 1

    def scan(self, annotations: Collection[str], progress: Progress) -> None:
        """Find the images and read the annotations; see :meth:`Source.scan`."""
        super().scan(annotations, progress)
        with looking_at(self.path):
            self.top = sorted(os.listdir(self.path))

    def _entries(self, progress: Progress, description: str) -> Iterator[Entry]:
        above = self.path.parent
        for folder, files in walked(self.path, self._wanted):
            for file in files:
                path = folder / file
                name = path.relative_to(above).as_posix()
                yield Entry(name, None, functools.partial(self._read, path))

    def _wanted(self, name: str) -> bool:
        return is_image(name) or name in self._annotations

    def _read(self, path: Path) -> bytes:
        """Return the content of an annotation."""
        with open_regular(path) as file:
            check_size(self.path, path.name, file.seek(0, 2), LARGEST_ANNOTATION)
            file.seek(0)
            return file.read(LARGEST_ANNOTATION)

    def _reading(self) -> contextlib.AbstractContextManager[None]:
        return looking_at(self.path)
