"""The commands of ``l2l-evograd`` and their options.

What a command needs is imported when it runs, so that ``--help`` is quick.
"""

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import l2l_evograd

app = typer.Typer(
    name="l2l-evograd",
    help="EvoGrad for learn2learn: experiments from the command line.",
    no_args_is_help=True,
    add_completion=False,
)

# Typer may bring its own copy of click, so its errors are found by way of typer.
_UsageError: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code.

    Raises:
        ValueError: for options that do not exist or do not parse.
    """
    command = typer.main.get_command(app)
    try:
        code = command.main(list(arguments), "l2l-evograd", standalone_mode=False)
    except _UsageError as error:
        # NoArgsIsHelp carries the whole help page.
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())  # type: ignore[attr-defined]
            return 2
        raise ValueError(error.format_message()) from error  # type: ignore[attr-defined]
    return code if isinstance(code, int) else 0


def _print_version(asked: bool) -> None:
    if asked:
        print(f"l2l-evograd {l2l_evograd.__version__}")
        raise typer.Exit()


@app.callback()
def _everything(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version and exit.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """EvoGrad for learn2learn: experiments from the command line."""


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
    methods: Annotated[
        str, typer.Option(help="Methods to compare, separated by commas.")
    ] = "none,ft,lft-exact,lft-evograd,lft-guided",
    head: Annotated[str, typer.Option(help="protonet or relationnet.")] = "protonet",
    backbone: Annotated[str, typer.Option(help="cnn4 or resnet10.")] = "cnn4",
    ways: Annotated[int, typer.Option(help="Classes of an episode.")] = 5,
    shots: Annotated[int, typer.Option(help="Support images of a class.")] = 5,
    queries: Annotated[int, typer.Option(help="Query images of a class.")] = 8,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the images in pixels.",
            show_default="32 built in; 84 (cnn4), 224 (resnet10), or the images' own",
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
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    save_every: Annotated[
        int, typer.Option(help="Iterations from checkpoint to checkpoint.")
    ] = 25,
    out: Annotated[
        Path, typer.Option(help="Folder for results, checkpoints and logs.")
    ] = Path("runs/crossdomain"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in --out.")
    ] = False,
) -> None:
    """Few-shot learning across domains: train on all but one, test on that one.

    Compares feature-wise transformation layers: none, fixed (ft), and learned through
    the exact hypergradient, the paper's Algorithm 1, or a guided finite difference.
    """
    with _without_gym_notice():
        from l2l_evograd.fewshot.command import crossdomain as run_crossdomain

    options = {
        "unseen": unseen,
        "base": base,
        "data": data,
        "methods": tuple(name.strip() for name in methods.split(",") if name.strip()),
        "head": head,
        "backbone": backbone,
        "ways": ways,
        "shots": shots,
        "queries": queries,
        "image_size": image_size,
        "iterations": iterations,
        "pretrain_epochs": pretrain_epochs,
        "episodes": episodes,
        "lr": lr,
        "meta_lr": meta_lr,
        "seed": seed,
        "seeds": seeds,
        "device": device,
        "save_every": save_every,
    }
    try:
        run_crossdomain(
            options,
            given=_given(context, options),
            out=out,
            resume=resume,
            overwrite=overwrite,
        )
    except KeyboardInterrupt as interrupt:
        # Here, because typer would make a silent exit of it.
        typer.echo(str(interrupt) or "interrupted", err=True)
        raise typer.Exit(130) from interrupt


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
    methods: Annotated[
        str, typer.Option(help="Methods to compare, separated by commas.")
    ] = "baseline,frozen,exact,evograd-paper,evograd,guided",
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
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    out: Annotated[
        Path, typer.Option(help="Folder for results, checkpoints and logs.")
    ] = Path("runs/noisy-labels"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in --out.")
    ] = False,
) -> None:
    """Train on wrong labels, with sample weights learned by Meta-Weight-Net.

    Compares no weights, a weight net left at its initial values, and one learned from
    a small clean set through the exact hypergradient, the paper's Algorithm 1, the
    same population scaled to the learning rate, or a guided finite difference.
    """
    from l2l_evograd.noisy_labels.command import noisy_labels as run_noisy_labels

    options = {
        "data": data,
        "methods": tuple(name.strip() for name in methods.split(",") if name.strip()),
        "noise": noise,
        "noise_rate": noise_rate,
        "imbalance": imbalance,
        "meta_images": meta_images,
        "train_images": train_images,
        "test_images": test_images,
        "image_size": image_size,
        "network": network,
        "width": width,
        "epochs": epochs,
        "iterations": iterations,
        "batch_size": batch_size,
        "lr": lr,
        "meta_lr": meta_lr,
        "precision": precision,
        "seed": seed,
        "seeds": seeds,
        "device": device,
    }
    with _interrupt_as_line():
        run_noisy_labels(
            options,
            given=_given(context, options),
            out=out,
            resume=resume,
            overwrite=overwrite,
        )


@app.command()
def rotation(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Option(
            help="Folder with MNIST's files; the test files alone will do.",
            show_default="built-in digits",
        ),
    ] = None,
    methods: Annotated[
        str, typer.Option(help="Methods to compare, separated by commas.")
    ] = "none,evograd,guided,exact",
    iterations: Annotated[int, typer.Option(help="Iterations of every method.")] = 200,
    batch_size: Annotated[
        int, typer.Option(help="Images of a training or validation batch.")
    ] = 128,
    lr: Annotated[float, typer.Option(help="Adam's rate for the weights.")] = 1e-3,
    meta_lr: Annotated[
        float, typer.Option(help="Adam's rate for the angle, in radians.")
    ] = 1e-2,
    candidates: Annotated[
        int, typer.Option(help="Candidates K of Algorithm 1 (evograd).")
    ] = 2,
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    seeds: Annotated[
        int, typer.Option(help="Number of seeds; more may be asked for with --resume.")
    ] = 2,
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path(
        "runs/rotation"
    ),
    resume: Annotated[
        bool, typer.Option("--resume", help="Do what the run in --out has left.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in --out.")
    ] = False,
) -> None:
    """Learn the angle that training digits are turned by, from turned digits.

    Training digits are upright, validation and test digits turned by 30 degrees.
    Compares no learning, the paper's Algorithm 1, a guided finite difference and the
    exact hypergradient. On the CPU.
    """
    options = {
        "data": data,
        "methods": tuple(name.strip() for name in methods.split(",") if name.strip()),
        "iterations": iterations,
        "batch_size": batch_size,
        "lr": lr,
        "meta_lr": meta_lr,
        "candidates": candidates,
        "seed": seed,
        "seeds": seeds,
    }
    with _interrupt_as_line():
        from l2l_evograd.illustrations import rotation_command

        rotation_command.rotation(
            options,
            given=_given(context, options),
            out=out,
            resume=resume,
            overwrite=overwrite,
        )


@app.command()
def illustrate(
    trials: Annotated[int, typer.Option(help="Trials for each of 100 values.")] = 100,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path(
        "runs/illustrate"
    ),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in --out.")
    ] = False,
) -> None:
    """Draw the paper's one-dimensional illustration: estimates and trajectories.

    Algorithm 1 with 2, 10 and 100 candidates, against the true hypergradient.
    """
    with _interrupt_as_line():
        from l2l_evograd.illustrations import illustrate_command

        illustrate_command.illustrate(
            trials=trials, seed=seed, out=out, overwrite=overwrite
        )


@contextlib.contextmanager
def _interrupt_as_line() -> Iterator[None]:
    """Say an interrupt and exit with 130; typer would make a silent exit of it."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        typer.echo(str(interrupt) or "interrupted", err=True)
        raise typer.Exit(130) from interrupt


@contextlib.contextmanager
def _without_gym_notice() -> Iterator[None]:
    """Hold back the advertisement that gym prints when learn2learn imports it.

    Whatever else is written to the standard error stream meanwhile comes afterwards.
    """
    held = io.StringIO()
    try:
        with contextlib.redirect_stderr(held):
            yield
    finally:
        for line in held.getvalue().splitlines():
            if "gym" not in line.lower():
                print(line, file=sys.stderr)


def _given(context: typer.Context, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that are on the command line, not left to their defaults."""
    return {
        name: value
        for name, value in options.items()
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }
