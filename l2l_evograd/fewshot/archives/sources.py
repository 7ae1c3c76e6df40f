"""What images come from: a base for archives, and folders that are unpacked already.

A source is read from one end to the other, once to see what there is and once for the
images that are wanted: the larger archives are compressed as a whole, so there is no
way to one image but past all before it.
"""

import abc
import contextlib
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from rich.progress import Progress

from l2l_evograd.fewshot.archives.names import is_image, member_parts


class Entry(NamedTuple):
    """A file in a source.

    Attributes:
        name: path below the top, with "/".
        size: in bytes; None in a folder, whose files stay where they are.
        read: returns what is in it.
    """

    name: str
    size: int | None
    read: Callable[[], bytes]


class Member(NamedTuple):
    """An image in a source.

    Attributes:
        source: that it is in.
        name: path below the top, with "/".
        size: in bytes; None if it stays where it is.
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
        """The name of the file alone."""
        return self.name.rpartition("/")[2]


class Source(abc.ABC):
    """An archive, or a folder.

    Args:
        path: of it.

    Attributes:
        path: as given.
        images: every file that is an image by its name; there after :meth:`scan`.
        annotations: path -> contents of the files that were asked for by name.
        top: what lies at the top, in the order of the source.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images: list[Member] = []
        self.annotations: dict[str, bytes] = {}
        self.top: list[str] = []

    def scan(self, annotations: Collection[str], progress: Progress) -> None:
        """See what there is.

        Args:
            annotations: names, without folders, of files whose contents are wanted.
            progress: to show how far it is.

        Cost: reads the archive once, 0.2 ms or more for each file in a tar; memory of
            0.4 kB for each image. For the 1.8 million of Places, minutes and 0.7 GB.

        Raises:
            ValueError: if it is damaged, or holds a link or an unsafe name.
        """
        top = {}
        with self._reading():
            for entry in self._entries(progress, f"reading {self.path.name}"):
                parts = member_parts(entry.name, self.path)
                if not parts:
                    continue
                top[parts[min(self._top_level, len(parts) - 1)]] = True
                name = "/".join(parts)
                if parts[-1] in annotations:
                    self.annotations[name] = entry.read()
                elif is_image(parts[-1]):
                    self.images.append(Member(self, name, entry.size))
        self.top = list(top)

    def contents(
        self, wanted: Collection[str], progress: Progress
    ) -> Iterator[tuple[str, bytes]]:
        """Yield names and contents of the files wanted, in the order of the source.

        Args:
            wanted: names, as :attr:`images` has them.
            progress: to show how far it is.

        Raises:
            ValueError: if the archive is damaged.
        """
        with self._reading():
            for entry in self._entries(progress, f"unpacking {self.path.name}"):
                name = "/".join(member_parts(entry.name, self.path))
                if name in wanted:
                    yield name, entry.read()

    # How many folders deep "the top" lies.
    _top_level = 0

    @abc.abstractmethod
    def _entries(self, progress: Progress, description: str) -> Iterator[Entry]:
        """Yield the files, in an order that is always the same."""

    @abc.abstractmethod
    def _reading(self) -> contextlib.AbstractContextManager[None]:
        """Turn what goes wrong while reading into a sentence."""


class FolderSource(Source):
    """A folder that an archive was unpacked to, or one inside it.

    Names in it begin with its own: the folder ``cars_train`` will do as well as the one
    above it.
    """

    _top_level = 1

    def _entries(self, progress: Progress, description: str) -> Iterator[Entry]:
        above = self.path.parent
        # Links to folders are followed: large data sets are often kept elsewhere.
        for folder, folders, files in os.walk(
            self.path, onerror=_refuse, followlinks=True
        ):
            folders.sort()
            for file in sorted(files):
                path = Path(folder, file)
                name = path.relative_to(above).as_posix()
                yield Entry(name, None, path.read_bytes)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PermissionError(
                f"cannot read {error.filename or self.path} ({error.strerror})"
            ) from error


def _refuse(error: OSError) -> None:
    # Left alone, os.walk passes over folders that it cannot read.
    raise error
