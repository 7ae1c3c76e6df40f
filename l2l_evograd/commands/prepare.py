"""``l2l-evograd prepare`` and its options."""

from pathlib import Path
from typing import Annotated

import typer

from l2l_evograd.commands.application import app, interrupt_as_line


@app.command()
def prepare(
    out: Annotated[
        Path,
        typer.Option(
            metavar="ROOT",
            help="Folder for ROOT/NAME/{base,val,novel}.json and the images.",
        ),
    ],
    name: Annotated[
        str | None,
        typer.Argument(
            help="miniImagenet, cub, cars, places or plantae.", show_default=False
        ),
    ] = None,
    archive: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Archive as it was downloaded, or the folder it was unpacked to; "
            "once for each.",
            show_default=False,
        ),
    ] = None,
    remap: Annotated[
        str | None,
        typer.Option(
            metavar="OLD=NEW",
            help="Instead: images listed by whole paths moved from OLD to NEW.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make file lists for crossdomain's --data from archives that you have.

    miniImagenet: mini_imagenet_full_size.tar.bz2 (train, val, test), or images with
    train.csv, val.csv and test.csv.

    cub: CUB_200_2011.tgz.

    cars: cars_train.tgz and car_devkit.tgz.

    places: places365standard_easyformat.tar or train_256_places365standard.tar.

    plantae: train_val2018.tar.gz of iNaturalist 2018, or its folder Plantae.

    Images of an archive are unpacked to ROOT/NAME/images, those of a folder stay where
    they are. May be interrupted, and run again.
    """
    with interrupt_as_line():
        from l2l_evograd.fewshot.archives.command import prepare_or_remap

        prepare_or_remap(name, archives=archive or [], remapped=remap, out=out)
