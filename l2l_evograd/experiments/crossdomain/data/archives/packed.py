"""Readers of archives: tar, compressed or not, and zip."""

import contextlib
import functools
import lzma
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

from rich.progress import Progress

from l2l_evograd.checks import InputError
from l2l_evograd.data.folders import given_path, is_folder, is_there, looking_at
from l2l_evograd.data.regular_files import open_regular
from l2l_evograd.data.zipped import UNREADABLE, files_in
from l2l_evograd.experiments.crossdomain.data.archives.sources import (
    Entry,
    FolderSource,
    Source,
)

_ZIP = b"PK\x03\x04"
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")  # gzip, bzip2 and xz
_TAR, _TAR_AT = b"ustar", 257

# Errors of the libraries for archives that are cut short, damaged, or mean harm. gzip
# and bzip2 raise OSError itself.
_DAMAGED = (tarfile.TarError, lzma.LZMAError, *UNREADABLE)

# Largest size of a member, wanted or not, and of a header that has no fixed size.
_LARGEST = 2**36
_LARGEST_HEADER = 2**18
_LONG_HEADERS = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)

# Bytes after the mark of the end. Tapes have some thousand.
_MOST_AFTER = 2**26
_BLOCK = 2**20


def open_source(given: str | Path) -> Source:
    """Return the archive or folder at a path, without reading it.

    Raises:
        InputError: if there is nothing there.
        InputError: if reading it is not permitted.
        InputError: if it is neither an archive nor a folder.
    """
    path = given_path(given)
    if is_folder(path):
        return FolderSource(path.resolve())
    if not is_there(path):
        raise InputError(
            f"expected an archive or an unpacked folder at {path}, found nothing"
        )
    if not os.access(path, os.R_OK):
        raise InputError(f"cannot read {path}; check its permissions with ls -l")
    with looking_at(path), open_regular(path) as file:
        start = file.read(tarfile.BLOCKSIZE)
        size = file.seek(0, 2)
    if start.startswith(_ZIP):
        return ZipSource(path)
    if start.startswith(_COMPRESSED) or start[_TAR_AT:].startswith(_TAR):
        return TarSource(path)
    raise InputError(
        f"expected an archive (tar, tar.gz, tar.bz2 or zip) or an unpacked folder, but "
        f"{path} ({size:,} bytes) is neither; download it again"
    )


class _Archive(Source):
    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except _DAMAGED as error:
            text = str(error) or type(error).__name__
            first = text.partition("\n")[0].rstrip(":")
            raise InputError(
                f"{self.path} is cut short or damaged ({first}); download it again"
            ) from error

    @contextlib.contextmanager
    def _opened(self, progress: Progress, description: str) -> Iterator[IO[bytes]]:
        """Open the file, with a progress bar of the bytes that are read."""
        with open_regular(self.path) as file:
            size = file.seek(0, 2)
            file.seek(0)
            binary = cast(BinaryIO, file)
            with progress.wrap_file(binary, size, description=description) as shown:
                yield shown


class TarSource(_Archive):
    """A tar archive, compressed with gzip, bzip2 or xz, or not compressed."""

    def _entries(self, progress: Progress, description: str) -> Iterator[Entry]:
        with (
            self._opened(progress, description) as file,
            tarfile.open(fileobj=file, mode="r:*", tarinfo=_Header) as archive,
        ):
            while (member := archive.next()) is not None:
                # The archive would keep every header, which takes gigabytes for Places.
                # The list is not part of the typed interface.
                archive.members = []  # type: ignore[attr-defined]
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise InputError(
                        f"expected {self.path} to contain only files and folders, "
                        f"found {member.name!r}, a link or device, or a sparse file; "
                        f"nothing was unpacked; get the archive from another source"
                    )
                read = functools.partial(_contents, archive, member)
                yield Entry(member.name, member.size, read)
            # The checksum of a compressed file is at its end, so all of it is read.
            after = 0
            while block := archive.fileobj.read(_BLOCK):
                after += len(block)
                if after > _MOST_AFTER:
                    raise tarfile.ReadError(
                        f"more than {_MOST_AFTER // 2**20} MiB follow its end"
                    )


class ZipSource(_Archive):
    """A zip archive."""

    def _entries(self, progress: Progress, description: str) -> Iterator[Entry]:
        with (
            self._opened(progress, description) as file,
            zipfile.ZipFile(file) as archive,
        ):
            for member in files_in(archive, self.path):
                read = functools.partial(archive.read, member)
                yield Entry(member.filename, member.file_size, read)


class _Header(tarfile.TarInfo):
    """The header of a member, which must be complete.

    ``tarfile`` treats a header that is missing, cut short or damaged as the end of the
    archive. A block of zeros marks the true end.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        """Return the header in a block; ``tarfile`` then reads what belongs to it.

        Raises:
            tarfile.HeaderError: if it is not a header, or would be far too large.
        """
        found = super().frombuf(buf, encoding, errors)
        long = found.type in _LONG_HEADERS
        _check_member(found, _LARGEST_HEADER if long else _LARGEST)
        return found

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "_Header":
        """Return the next header.

        Raises:
            tarfile.ReadError: if there is neither a header nor a mark of the end, or
                if the header states a size that no member has.
        """
        try:
            found = super().fromtarfile(tarfile_)
            # A header of another kind may have replaced the size.
            _check_member(found, _LARGEST)
            return found
        # tarfile itself handles this error at the end. The type stubs do not have it.
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(
                f"{error} at byte {tarfile_.offset:,} unpacked"
            ) from error


def _check_member(member: tarfile.TarInfo, largest: int) -> None:
    """Check the size that a header states.

    A negative one would lead back to a header that was read already.

    Raises:
        tarfile.InvalidHeaderError: if no member is so large.
    """
    if not 0 <= member.size <= largest:
        # The type stubs do not have it.
        raise tarfile.InvalidHeaderError(  # type: ignore[attr-defined]
            f"a header that states {member.size:,} bytes"
        )


def _contents(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    # extractfile returns None only for members that are not files, such as folders.
    # These are not among the entries.
    return cast(IO[bytes], archive.extractfile(member)).read()
