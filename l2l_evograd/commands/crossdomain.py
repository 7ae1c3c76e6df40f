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
    preset: Annotated[
        str | None,
        typer.Option(
            help="Published settings: paper-1shot or paper-5shot. Other options outdo "
            "them.",
            show_default=False,
        ),
    ] = None,
    unseen: Annotated[
        str,
        typer.Option(
            help="Domain left out of training and tested on; several, separated by "
            "commas, one after the other."
        ),
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
    head: Annotated[
        str,
        typer.Option(
            help="protonet, matchingnet, relationnet, relationnet-mse or gnn."
        ),
    ] = "protonet",
    backbone: Annotated[
        str,
        typer.Option(help="cnn4, conv4, conv6, resnet10, resnet18 or resnet34."),
    ] = "cnn4",
    ways: Annotated[int, typer.Option(help="Classes of an episode.")] = 5,
    shots: Annotated[int, typer.Option(help="Support images of a class.")] = 5,
    queries: Annotated[int, typer.Option(help="Query images of a class.")] = 8,
    test_queries: Annotated[
        int | None,
        typer.Option(
            help="The same in test episodes.", show_default="as many as --queries"
        ),
    ] = None,
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
    domain_block: Annotated[
        int,
        typer.Option(help="Consecutive episodes from the same two seen domains."),
    ] = 1,
    augment: Annotated[
        bool,
        typer.Option(
            "--augment", help="Crop, jitter and mirror photographs in training."
        ),
    ] = False,
    auxiliary: Annotated[
        bool,
        typer.Option(
            "--auxiliary", help="Learn to classify the base domain's images beside."
        ),
    ] = False,
    pretrain_epochs: Annotated[
        int, typer.Option(help="Passes over the base classes; 0: no pre-training.")
    ] = 15,
    pretrain_batch: Annotated[
        int, typer.Option(help="Images of a batch of pre-training.")
    ] = 64,
    pretrain_classes: Annotated[
        int | None,
        typer.Option(
            help="Outputs of the pre-training's classifier.",
            show_default="the number of classes",
        ),
    ] = None,
    pretrain_classifier: Annotated[
        str | None,
        typer.Option(
            help="linear (baseline) or cosine (baseline++).",
            show_default="cosine for matchingnet, else linear",
        ),
    ] = None,
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
    precision: Annotated[
        str, typer.Option(help="32, bf16 or fp16 (under autocast).")
    ] = "32",
    accumulate: Annotated[
        int,
        typer.Option(help="Pairs of episodes of an iteration, in each process."),
    ] = 1,
    device: Device = "auto",
    devices: Annotated[
        int,
        typer.Option(help="Processes, each with a device and episodes of its own."),
    ] = 1,
    nodes: Annotated[
        int, typer.Option(help="Machines, each with as many; started by torchrun.")
    ] = 1,
    save_every: Annotated[
        int, typer.Option(help="Iterations from checkpoint to checkpoint.")
    ] = 25,
    workers: Annotated[
        int, typer.Option(help="Processes that read images ahead; 0: none.")
    ] = 0,
    cache: Annotated[
        float, typer.Option(help="GiB of memory for decoded images.")
    ] = 2.0,
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
