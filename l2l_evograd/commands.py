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
