"""``l2l-evograd rotation`` and ``illustrate``, and their options."""

from pathlib import Path
from typing import Annotated

import typer

from l2l_evograd.commands.application import (
    Methods,
    Overwrite,
    app,
    asked_for,
    interrupt_as_line,
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
    methods: Methods = "none,evograd,guided,exact",
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
    overwrite: Overwrite = False,
) -> None:
    """Learn the angle that training digits are turned by, from turned digits.

    Training digits are upright, validation and test digits turned by 30 degrees.
    Compares no learning, the paper's Algorithm 1, a guided finite difference and the
    exact hypergradient. On the CPU.
    """
    with interrupt_as_line():
        from l2l_evograd.illustrations import rotation_command

        rotation_command.rotation(**asked_for(context))


@app.command()
def illustrate(
    trials: Annotated[int, typer.Option(help="Trials for each of 100 values.")] = 100,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path(
        "runs/illustrate"
    ),
    overwrite: Overwrite = False,
) -> None:
    """Draw the paper's one-dimensional illustration: estimates and trajectories.

    Algorithm 1 with 2, 10 and 100 candidates, against the true hypergradient.
    """
    with interrupt_as_line():
        from l2l_evograd.illustrations import illustrate_command

        illustrate_command.illustrate(
            trials=trials, seed=seed, out=out, overwrite=overwrite
        )
