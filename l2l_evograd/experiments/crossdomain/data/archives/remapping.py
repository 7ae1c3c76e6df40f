"""Changes the paths in file lists whose images have moved."""

from pathlib import Path
from typing import Any

from l2l_evograd.checks import InputError
from l2l_evograd.data.folders import given_path, looking_at
from l2l_evograd.experiments.crossdomain.data.archives.unpacking import write_list
from l2l_evograd.experiments.crossdomain.data.filelists import (
    checked_list,
    find_domains,
    read_object_of_list,
)

_IMAGES = "image_names"


def remap(root: Path, old: str, new: str, name: str | None = None) -> dict[Path, int]:
    """Replace the folder ``old`` by ``new`` in the absolute image paths of file lists.

    Relative paths do not change. Nothing is written before everything is checked.

    Args:
        root: folder with ``NAME/{base,val,novel}.json``.
        old: the folder of the images in the lists.
        new: the folder of the images now.
        name: name of the domain to change; None: all domains.

    Returns:
        The number of changed paths of each changed list.

    Raises:
        InputError: if there are no lists, or the first image of a list does not exist
            at its new path.
        InputError: for folders that are not absolute paths, an unknown name, malformed
            lists, or if no path is below ``old``.
    """
    target = given_path(new)
    for path in (Path(old), target):
        if not path.is_absolute():
            raise InputError(
                f"expected absolute paths in --remap OLD=NEW, got {str(path)!r}; begin "
                f"them with /"
            )
    domains = find_domains(given_path(root))
    if name is not None and name not in domains:
        raise InputError(
            f"unknown data set {name!r} in {root}; choose from {', '.join(domains)}"
        )
    files = [
        file
        for domain, of_domain in domains.items()
        for file in of_domain.values()
        if name in (None, domain)
    ]
    changes: dict[Path, tuple[dict[str, Any], int]] = {}
    for file in files:
        content, changed = _moved(file, Path(old), target)
        if changed:
            changes[file] = (content, changed)
    if not changes:
        first = read_object_of_list(files[0])[_IMAGES][0]
        raise InputError(
            f"expected images whose paths begin with {old}, found none; the first path "
            f"in {files[0]} is {first}"
        )
    for file, (content, _) in changes.items():
        write_list(file, content)
    return {file: changed for file, (_, changed) in changes.items()}


def _moved(file: Path, old: Path, new: Path) -> tuple[dict[str, Any], int]:
    """Return the new content of a list, and the number of its changed paths.

    Raises:
        InputError: if the first changed path does not exist.
    """
    content = read_object_of_list(file)
    checked_list(file, content)
    before: list[str] = content[_IMAGES]
    after = [
        str(new / Path(image).relative_to(old))
        if Path(image).is_relative_to(old)
        else image
        for image in before
    ]
    changed = [path for path, was in zip(after, before, strict=True) if path != was]
    if changed and not _is_file(Path(changed[0])):
        raise InputError(
            f"expected the first image of {file} at {changed[0]}, found nothing; "
            f"nothing was changed; check NEW in --remap OLD=NEW"
        )
    return {**content, _IMAGES: after}, len(changed)


def _is_file(path: Path) -> bool:
    with looking_at(path):
        return path.is_file()
