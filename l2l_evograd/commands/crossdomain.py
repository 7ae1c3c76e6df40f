"""``l2l-evograd crossdomain`` and its options."""

from pathlib import Path
from typing import Annotated

import typer

from l2l_evograd.commands.application import (
    Device,
    Methods,
    OutFolder,
    Overwrite,
    Resume,
    Seeds,
    app,
    asked_for,
    interrupt_as_line,
    without_gym_notice,
)


@app.command()
def crossdomain(
    context: typer.Context,
    unseen: Annotated[
        str, typer.Option(help="Domain left out of training and tested on.")
    ] = "sketch",
    base: Annotated[
        str | None,
        typer.Option(
            help="Domain of the pre-training.",
            show_default="print, or the first seen domain of --data",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Folder ROOT with ROOT/NAME/{base,val,novel}.json.",
            show_default="built-in glyphs",
        ),
    ] = None,
    methods: Methods = "none,ft,lft-exact,lft-evograd,lft-guided",
    head: Annotated[str, typer.Option(help="protonet or relationnet.")] = "protonet",
    backbone: Annotated[
        str, typer.Option(help="cnn4, resnet10, resnet18 or resnet34.")
    ] = "cnn4",
    ways: Annotated[int, typer.Option(help="Classes of an episode.")] = 5,
    shots: Annotated[int, typer.Option(help="Support images of a class.")] = 5,
    queries: Annotated[int, typer.Option(help="Query images of a class.")] = 8,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the images in pixels.",
            show_default="32 built in; 84 (cnn4), 224 (ResNets), or the images' own",
        ),
    ] = None,
    iterations: Annotated[
        int, typer.Option(help="Meta-training iterations of every method.")
    ] = 100,
    pretrain_epochs: Annotated[
        int, typer.Option(help="Passes over the base classes; 0: no pre-training.")
    ] = 15,
    episodes: Annotated[int, typer.Option(help="Test episodes.")] = 600,
    lr: Annotated[float, typer.Option(help="Adam's rate for the weights.")] = 1e-3,
    meta_lr: Annotated[
        float,
        typer.Option(
            help="Adam's rate for the transformation; the literature has 0.001 and "
            "40,000 iterations."
        ),
    ] = 1e-2,
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    seeds: Seeds = 1,
    device: Device = "auto",
    save_every: Annotated[
        int, typer.Option(help="Iterations from checkpoint to checkpoint.")
    ] = 25,
    out: OutFolder = Path("runs/crossdomain"),
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Few-shot learning across domains: train on all but one, test on that one.

    Compares feature-wise transformation layers: none, fixed (ft), and learned through
    the exact hypergradient, the paper's Algorithm 1, or a guided finite difference.
    """
    with interrupt_as_line():
        with without_gym_notice():
            from l2l_evograd.fewshot.command import crossdomain as run_crossdomain

        run_crossdomain(**asked_for(context))
