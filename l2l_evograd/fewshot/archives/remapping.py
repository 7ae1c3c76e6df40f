"""File lists whose images have moved."""

from pathlib import Path
from typing import Any

from l2l_evograd.fewshot.archives.unpacking import write_list
from l2l_evograd.fewshot.filelists import find_domains, read_filelist
from l2l_evograd.runs.folder import read_object

_IMAGES = "image_names"


def remap(root: Path, old: str, new: str, name: str | None = None) -> dict[Path, int]:
    """Rewrite the lists whose images' whole paths lie below ``old`` to ``new``.

    Relative paths stay as they are. Nothing is written before everything is checked.

    Args:
        root: folder with ``NAME/{base,val,novel}.json``.
        old: the folder as the lists have it.
        new: where it lies now.
        name: of the one domain to change; None: all of them.

    Returns:
        list -> number of paths that were changed, for those with any.

    Raises:
        FileNotFoundError: if there are no lists, or the first image of one is not where
            it would be.
        ValueError: for folders that are not whole paths, an unknown name, lists that
            are malformed, or no path below ``old``.
    """
    target = Path(new).expanduser()
    for path in (Path(old), target):
        if not path.is_absolute():
            raise ValueError(
                f"expected whole paths in --remap OLD=NEW, got {str(path)!r}; begin "
                f"them with /"
            )
    domains = find_domains(root.expanduser())
    if name is not None and name not in domains:
        raise ValueError(
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
        first = read_object(files[0])[_IMAGES][0]
        raise ValueError(
            f"expected images whose paths begin with {old}, found none; the first of "
            f"{files[0]} is {first}"
        )
    for file, (content, _) in changes.items():
        write_list(file, content)
    return {file: changed for file, (_, changed) in changes.items()}


def _moved(file: Path, old: Path, new: Path) -> tuple[dict[str, Any], int]:
    """Return what a list shall hold, and how many of its paths change.

    Raises:
        FileNotFoundError: if the first of them does not exist.
    """
    read_filelist(file)  # refuses what is malformed
    content = read_object(file)
    before = [str(image) for image in content[_IMAGES]]
    after = [
        str(new / Path(image).relative_to(old))
        if Path(image).is_relative_to(old)
        else image
        for image in before
    ]
    changed = [path for path, was in zip(after, before, strict=True) if path != was]
    if changed and not Path(changed[0]).is_file():
        raise FileNotFoundError(
            f"expected the first image of {file} at {changed[0]}, found nothing; "
            f"nothing was changed, check NEW of --remap OLD=NEW"
        )
    return {**content, _IMAGES: after}, len(changed)
