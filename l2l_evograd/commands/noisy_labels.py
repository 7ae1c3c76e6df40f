"""``l2l-evograd noisy-labels`` and its options."""

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
)


@app.command()
def noisy_labels(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Option(
            help="Folder with torchvision's CIFAR-10 or CIFAR-100, or with "
            "train/<class> and test/<class>.",
            show_default="built-in glyphs",
        ),
    ] = None,
    methods: Methods = "baseline,frozen,exact,evograd-paper,evograd,guided",
    noise: Annotated[str, typer.Option(help="uniform, flip or flip2.")] = "flip2",
    noise_rate: Annotated[
        float, typer.Option(help="Share of labels that the noise acts on, 0 to 1.")
    ] = 0.4,
    imbalance: Annotated[
        float,
        typer.Option(help="Largest class by smallest, a long tail; 1: none."),
    ] = 1.0,
    meta_images: Annotated[
        int | None,
        typer.Option(
            help="Size of the clean, balanced meta set.",
            show_default="1000; 100 built in",
        ),
    ] = None,
    train_images: Annotated[
        int | None,
        typer.Option(help="Images to train on.", show_default="all others"),
    ] = None,
    test_images: Annotated[
        int | None, typer.Option(help="Images to test on.", show_default="all")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the images in pixels.", show_default="32; 20 built in"
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="small, resnet32 or wrn28-10.",
            show_default="resnet32; small built in",
        ),
    ] = None,
    width: Annotated[int, typer.Option(help="Factor of the network's channels.")] = 1,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the training images.", show_default="60; 15 built in"
        ),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(
            help="Iterations of every method, in place of --epochs.", show_default=False
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(help="Images of a training or meta batch.")
    ] = 100,
    lr: Annotated[float, typer.Option(help="SGD's rate for the weights.")] = 0.1,
    meta_lr: Annotated[
        float, typer.Option(help="SGD's rate for the weight net.")
    ] = 1e-3,
    precision: Annotated[
        str, typer.Option(help="32, or bf16 for bfloat16 under autocast.")
    ] = "32",
    seed: Annotated[
        int, typer.Option(help="First seed; split and noise follow it as well.")
    ] = 0,
    seeds: Seeds = 1,
    device: Device = "auto",
    devices: Annotated[
        int, typer.Option(help="Processes, each with a device, that share each batch.")
    ] = 1,
    out: OutFolder = Path("runs/noisy-labels"),
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Train on wrong labels, with sample weights learned by Meta-Weight-Net.

    Compares no weights, a weight net left at its initial values, and one learned from
    a small clean set through the exact hypergradient, the paper's Algorithm 1, the
    same population scaled to the learning rate, or a guided finite difference.
    """
    with interrupt_as_line():
        from l2l_evograd.noisy_labels.command import noisy_labels as run_noisy_labels

        run_noisy_labels(**asked_for(context))
