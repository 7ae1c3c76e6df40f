"""Archives: tar, compressed or not, and zip."""

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

from l2l_evograd.fewshot.archives.sources import Entry, FolderSource, Source

_ZIP = b"PK\x03\x04"
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")  # gzip, bzip2 and xz
_TAR, _TAR_AT = b"ustar", 257

# Windows itself packs large files in another way.
_KNOWN_TO_ZIPFILE = {
    *(zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
}

# What the libraries raise for archives that are cut short or damaged; gzip and bzip2
# raise OSError itself, and zipfile NotImplementedError for a version that is none.
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
    """Return the archive or folder at ``path``, not read yet.

    Raises:
        FileNotFoundError: if there is nothing.
        PermissionError: if it may not be read.
        ValueError: if it is neither an archive nor a folder.
    """
    path = path.expanduser()
    if path.is_dir():
        return FolderSource(path.resolve())
    if not path.exists():
        raise FileNotFoundError(
            f"expected an archive or an unpacked folder at {path}, found nothing"
        )
    if not os.access(path, os.R_OK):
        raise PermissionError(f"cannot read {path}; see who may with ls -l")
    with path.open("rb") as file:
        start = file.read(tarfile.BLOCKSIZE)
    if start.startswith(_ZIP):
        return ZipSource(path)
    if start.startswith(_COMPRESSED) or start[_TAR_AT:].startswith(_TAR):
        return TarSource(path)
    raise ValueError(
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
            raise ValueError(
                f"{self.path} is cut short or damaged ({first}); download it again"
            ) from error

    def _no_file(self, name: str) -> ValueError:
        return ValueError(
            f"expected {self.path} to hold files and folders alone, found {name!r}, a "
            f"link or device; nothing was unpacked, take the archive from another place"
        )


class TarSource(_Archive):
    """A tar archive, compressed by gzip, bzip2, xz, or not at all."""

    def _entries(self, progress: Progress, description: str) -> Iterator[Entry]:
        with (
            progress.open(self.path, "rb", description=description) as file,
            tarfile.open(fileobj=file, mode="r:*", tarinfo=_Header) as archive,
        ):
            while (member := archive.next()) is not None:
                # It would keep every header, gigabytes of them for Places. The list is
                # no part of the typed interface.
                archive.members = []  # type: ignore[attr-defined]
                if member.isdir():
                    continue
                if not member.isreg():
                    raise self._no_file(member.name)
                read = functools.partial(_contents, archive, member)
                yield Entry(member.name, member.size, read)
            # The checksum of a compressed file comes at its very end.
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
                    raise ValueError(
                        f"{self.path} is encrypted, or compressed in a way that Python "
                        f"does not read; unpack it and give the folder"
                    )
                read = functools.partial(archive.read, member)
                yield Entry(member.filename, member.file_size, read)


class _Header(tarfile.TarInfo):
    """The header of a member, which must be whole.

    ``tarfile`` takes a header that is missing, cut or garbled for the end of the
    archive. The true end is marked by a block of zeros.
    """

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "_Header":
        """Return the next header.

        Raises:
            tarfile.ReadError: if there is none, and no mark of the end either.
        """
        try:
            return super().fromtarfile(tarfile_)
        # The end, which tarfile itself waits for; the type stubs leave it out.
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(
                f"{error} at byte {tarfile_.offset:,} unpacked"
            ) from error


def _contents(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    # None stands for folders and the like, which are not among the entries.
    return cast(IO[bytes], archive.extractfile(member)).read()
