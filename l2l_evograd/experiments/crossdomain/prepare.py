"""``l2l-evograd prepare``."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from l2l_evograd.checks import InputError, check_choice
from l2l_evograd.experiments.experiment import say
from l2l_evograd.experiments.options import NotAnOption, OutFolder
from l2l_evograd.experiments.output import printing
from l2l_evograd.interrupts import telling


@printing("prepare")
def prepare(
    name: str | None = None,
    /,
    *,
    out: OutFolder,
    archive: list[str] | None = None,
    remap: str | None = None,
    console: Annotated[Console | None, NotAnOption] = None,
) -> list[dict[str, Any]]:
    """Make file lists for crossdomain's --data from archives on this machine.

    miniImagenet: mini_imagenet_full_size.tar.bz2 (train, val, test), or images with
    train.csv, val.csv and test.csv.

    cub: CUB_200_2011.tgz.

    cars: cars_train.tgz and car_devkit.tgz.

    places: places365standard_easyformat.tar or train_256_places365standard.tar.

    plantae: train_val2018.tar.gz of iNaturalist 2018, or its folder Plantae.

    Images of an archive are unpacked to OUT/NAME/images. Images of a folder are not
    moved. The command can be interrupted and repeated.

    Args:
        name: miniImagenet, cub, cars, places or plantae.
        out: Folder for OUT/NAME/{base,val,novel}.json and the images.
        archive: Archive as it was downloaded, or the folder to which it was unpacked;
            give the option once for each archive.
        remap: OLD=NEW. Do not make lists; instead, change the absolute image paths in
            existing lists after the images have moved from folder OLD to folder NEW.
        console: console to print on; None: the standard output.

    Returns:
        One row for each list, with the number of its classes and images; for --remap
        one for each file, with the number of its changed paths.

    Raises:
        InputError: for bad input.
        KeyboardInterrupt: when interrupted; its text tells how to continue.
    """
    console, archives = console or Console(), archive or []

    def text() -> str:
        again = ["l2l-evograd", "prepare", *([] if name is None else [name])]
        again += [word for path in archives for word in ("--archive", path)]
        again += [] if remap is None else ["--remap", remap]
        again += ["--out", str(out)]
        return (
            f"interrupted; finished files are kept; continue with: {shlex.join(again)}"
        )

    with telling(text):
        if remap is None:
            return _prepare(name, archives, out, console)
        if archives:
            raise InputError("expected --archive or --remap, got both")
        return _remap(name, remap, out, console)


def _prepare(
    name: str | None, archives: Sequence[str], out: Path, console: Console
) -> list[dict[str, Any]]:
    from l2l_evograd.experiments.crossdomain.data.archives import LAYOUTS, make_lists

    check_choice(name, tuple(LAYOUTS), "the name of a data set")
    layout = LAYOUTS[name or ""]
    if not archives:
        raise InputError(
            f"expected {layout.expected}, got no archive; give each archive, or the "
            f"folder to which it was unpacked, with --archive"
        )
    made = make_lists(layout, archives, out, console)
    rows = [
        {"split": split, "classes": made.classes[split], "images": images}
        for split, images in made.images.items()
    ]
    for row in rows:
        say(
            console,
            f"{row['split']}: {row['classes']} classes, {row['images']:,} images",
        )
    if not made.unpacked and not made.written:
        say(console, f"{made.folder} is complete already; nothing was changed")
        return rows
    lists = ", ".join(f"{split}.json" for split in made.written) or "no list"
    say(
        console, f"{made.folder}: {made.unpacked:,} images unpacked and {lists} written"
    )
    return rows


def _remap(
    name: str | None, moved: str, out: Path, console: Console
) -> list[dict[str, Any]]:
    from l2l_evograd.experiments.crossdomain.data.archives import remap

    old, equals, new = moved.partition("=")
    if not (old and equals and new):
        raise InputError(
            f"expected --remap OLD=NEW, the folder in the lists and its new place, got "
            f"{moved!r}"
        )
    changed = remap(out, old, new, name)
    for file, paths in changed.items():
        say(console, f"{file}: {paths:,} paths changed")
    return [{"file": str(file), "paths": paths} for file, paths in changed.items()]
