"""Checks of a file list: its size before it is parsed, and each of its entries."""

from pathlib import Path
from typing import Any

from l2l_evograd.checks import InputError
from l2l_evograd.data.folders import check_name, looking_at
from l2l_evograd.data.regular_files import open_regular

# Limits of a list. One at both limits takes about 1 GB of memory while it is read. The
# largest data sets of the field have 1.3 million images.
LARGEST_LIST = 2**27
MOST_IMAGES = 3_000_000
_BLOCK = 2**20


def check_size(path: Path) -> None:
    """Check the size of a list, and the number of its commas, before it is parsed.

    Raises:
        InputError: if it is too large.
    """
    # An image takes two. The third is for names of classes, and for commas in names.
    most = 3 * MOST_IMAGES
    with looking_at(path), open_regular(path) as file:
        size, commas = file.seek(0, 2), 0
        file.seek(0)
        while size <= LARGEST_LIST and (block := file.read(_BLOCK)):
            commas += block.count(b",")
    if size > LARGEST_LIST or commas > most:
        raise InputError(
            f"expected a list of at most {LARGEST_LIST // 2**20} MiB and "
            f"{MOST_IMAGES:,} images in {path}, got {size / 2**20:,.0f} MiB"
            + (f" and {commas:,} commas" if commas > most else "")
        )


def check_image(image: Any, path: Path) -> None:
    """Check that an entry of image_names is a path.

    Raises:
        InputError: if it is not.
    """
    if not isinstance(image, str) or not image:
        raise InputError(
            f"expected every image_names entry of {path} to be a path, got "
            f"{repr(image)[:80]}"
        )
    check_name(image, f"every image_names entry of {path}")


def check_class(name: Any, path: Path) -> None:
    """Check that an entry of label_names is a name.

    Raises:
        InputError: if it is not.
    """
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise InputError(
            f"expected every label_names entry of {path} to be a name, got "
            f"{repr(name)[:80]}"
        )
    check_name(str(name), f"every label_names entry of {path}")


def check_label(label: Any, classes: int, path: Path) -> None:
    """Check that an entry of image_labels is the number of a class.

    Raises:
        InputError: if it is not.
    """
    whole = isinstance(label, int) and not isinstance(label, bool)
    if not whole or not 0 <= label < classes:
        raise InputError(
            f"expected every image_labels entry of {path} to be a whole number from 0 "
            f"to {classes - 1}, an index into label_names, got {repr(label)[:80]}"
        )
