"""Readers of archives: tar, compressed or not, and zip."""

import contextlib
import functools
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from rich.progress import Progress

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.crossdomain.data.archives.sources import (
    Entry,
    FolderSource,
    Source,
)

_ZIP = b"PK\x03\x04"
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")  # gzip, bzip2 and xz
_TAR, _TAR_AT = b"ustar", 257

# Windows compresses large files with another method, which Python cannot read.
_KNOWN_TO_ZIPFILE = {
    *(zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
}

# Errors of the libraries for archives that are cut short or damaged. gzip and bzip2
# raise OSError itself; zipfile raises NotImplementedError for an invalid version.
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,
)


def open_source(path: Path) -> Source:
    """Return the archive or folder at ``path``, without reading it.

    Raises:
        InputError: if there is nothing at ``path``.
        InputError: if reading it is not permitted.
        InputError: if it is neither an archive nor a folder.
    """
    path = path.expanduser()
    if path.is_dir():
        return FolderSource(path.resolve())
    if not path.exists():
        raise InputError(
            f"expected an archive or an unpacked folder at {path}, found nothing"
        )
    if not os.access(path, os.R_OK):
        raise InputError(f"cannot read {path}; check its permissions with ls -l")
    with path.open("rb") as file:
        start = file.read(tarfile.BLOCKSIZE)
    if start.startswith(_ZIP):
        return ZipSource(path)
    if start.startswith(_COMPRESSED) or start[_TAR_AT:].startswith(_TAR):
        return TarSource(path)
    raise InputError(
        f"expected an archive (tar, tar.gz, tar.bz2 or zip) or an unpacked folder, but "
        f"{path} ({path.stat().st_size:,} bytes) is neither; download it again"
    )


class _Archive(Source):
    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except _DAMAGED as error:
            first = str(error).partition("\n")[0].rstrip(":")
            raise InputError(
                f"{self.path} is cut short or damaged ({first}); download it again"
            ) from error

    def _no_file(self, name: str) -> InputError:
        return InputError(
            f"expected {self.path} to contain only files and folders, found {name!r}, "
            f"a link or device; nothing was unpacked; get the archive from another "
            f"source"
        )


class TarSource(_Archive):
    """A tar archive, compressed with gzip, bzip2 or xz, or not compressed."""

    def _entries(self, progress: Progress, description: str) -> Iterator[Entry]:
        with (
            progress.open(self.path, "rb", description=description) as file,
            tarfile.open(fileobj=file, mode="r:*", tarinfo=_Header) as archive,
        ):
            while (member := archive.next()) is not None:
                # The archive would keep every header, which takes gigabytes for Places.
                # The list is not part of the typed interface.
                archive.members = []  # type: ignore[attr-defined]
                if member.isdir():
                    continue
                if not member.isreg():
                    raise self._no_file(member.name)
                read = functools.partial(_contents, archive, member)
                yield Entry(member.name, member.size, read)
            # The checksum of a compressed file is at its end, so all of it is read.
            while archive.fileobj.read(1 << 20):
                pass


class ZipSource(_Archive):
    """A zip archive."""

    def _entries(self, progress: Progress, description: str) -> Iterator[Entry]:
        with (
            progress.open(self.path, "rb", description=description) as file,
            zipfile.ZipFile(file) as archive,
        ):
            for member in archive.infolist():
                if member.is_dir():
                    continue
                if stat.S_ISLNK(member.external_attr >> 16):
                    raise self._no_file(member.filename)
                if (
                    member.flag_bits & 1
                    or member.compress_type not in _KNOWN_TO_ZIPFILE
                ):
                    raise InputError(
                        f"{self.path} is encrypted, or compressed with a method that "
                        f"Python cannot read; unpack it and give the folder"
                    )
                read = functools.partial(archive.read, member)
                yield Entry(member.filename, member.file_size, read)


class _Header(tarfile.TarInfo):
    """The header of a member, which must be complete.

    ``tarfile`` treats a header that is missing, cut short or damaged as the end of the
    archive. A block of zeros marks the true end.
    """

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "_Header":
        """Return the next header.

        Raises:
            tarfile.ReadError: if there is neither a header nor a mark of the end.
        """
        try:
            return super().fromtarfile(tarfile_)
        # tarfile itself handles this error at the end. The type stubs do not have it.
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(
                f"{error} at byte {tarfile_.offset:,} unpacked"
            ) from error


def _contents(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    # extractfile returns None only for members that are not files, such as folders.
    # These are not among the entries.
    return cast(IO[bytes], archive.extractfile(member)).read()
