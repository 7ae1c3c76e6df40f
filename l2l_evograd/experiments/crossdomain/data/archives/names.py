"""Names in archives: checks for safe names and images, and folder names of classes."""

import re
from pathlib import Path, PurePosixPath, PureWindowsPath

from l2l_evograd.checks import InputError
from l2l_evograd.data.folders import check_name

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


def member_parts(name: str, archive: Path) -> tuple[str, ...]:
    """Return the parts of a member's name, without a leading "./".

    Args:
        name: name of the member in the archive.
        archive: path of the archive, for messages.

    Raises:
        InputError: if the name leads out of the folder to which the archive is
            unpacked, on any operating system, or if it cannot be the name of a file.
    """
    check_name(name, f"every name in {archive}")
    seen_by_windows = PureWindowsPath(name)
    if seen_by_windows.anchor or ".." in seen_by_windows.parts:
        raise InputError(
            f"expected all files of {archive} below the folder to which it is "
            f"unpacked, found {name!r}, which leads out of it; nothing was unpacked; "
            f"get the archive from another source"
        )
    return PurePosixPath(name).parts


def is_image(file: str) -> bool:
    """Return whether a file is an image by its name. Hidden files are not images.

    Archives made on a Mac contain a hidden file beside every image.
    """
    return not file.startswith(".") and PurePosixPath(file).suffix.lower() in _SUFFIXES


def folder_name(label: str) -> str:
    """Return a folder name for a class: "Ram C/V" becomes "Ram C-V".

    Raises:
        InputError: if the name of the class gives no valid folder name.
    """
    folder = re.sub(r"[/\\:\0]", "-", label).strip()
    if not folder.strip("."):
        raise InputError(f"expected the name of a class, got {label!r}")
    return folder
