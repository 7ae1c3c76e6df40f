"""Names inside archives: which are safe, which are images, and folders for classes."""

import re
from pathlib import Path, PurePosixPath, PureWindowsPath

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


def member_parts(name: str, archive: Path) -> tuple[str, ...]:
    """Return the parts of a member's name, without a leading "./".

    Args:
        name: as the archive has it.
        archive: for the message.

    Raises:
        ValueError: for a name that leads out of the folder it is unpacked to, on this
            system or another.
    """
    seen_by_windows = PureWindowsPath(name)
    if seen_by_windows.anchor or ".." in seen_by_windows.parts:
        raise ValueError(
            f"expected {archive} to hold files below the folder it is unpacked to, "
            f"found {name!r}, which leads out of it; nothing was unpacked, take the "
            f"archive from another place"
        )
    return PurePosixPath(name).parts


def is_image(file: str) -> bool:
    """Say whether a file is an image by its name; hidden files are none.

    Archives made on a Mac hold a hidden file beside every image.
    """
    return not file.startswith(".") and PurePosixPath(file).suffix.lower() in _SUFFIXES


def folder_name(label: str) -> str:
    """Return the name of a class as a name for a folder: "Ram C/V" becomes "Ram C-V".

    Raises:
        ValueError: if nothing that can name a folder is left.
    """
    folder = re.sub(r"[/\\:\0]", "-", label).strip()
    if not folder.strip("."):
        raise ValueError(f"expected the name of a class, got {label!r}")
    return folder
