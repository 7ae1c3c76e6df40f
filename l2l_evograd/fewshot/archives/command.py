"""``l2l-evograd prepare`` from its options to what it says."""

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from l2l_evograd.fewshot.archives import LAYOUTS, Prepared, prepare, remap
from l2l_evograd.runs.command import say


def prepare_or_remap(
    name: str | None,
    *,
    archives: Sequence[Path],
    remapped: str | None,
    out: Path,
    console: Console | None = None,
) -> None:
    """Prepare a data set, or rewrite lists whose images moved, and say what was done.

    Args:
        name: of the data set; with ``remapped`` None means every one in ``out``.
        archives: of the data set, or folders that they were unpacked to.
        remapped: "OLD=NEW", or None to prepare.
        out: folder that holds a folder for each data set.
        console: where to say it; None: the standard output.

    Raises:
        ValueError, FileNotFoundError, PermissionError: for bad input.
        KeyboardInterrupt: when interrupted, saying how to go on.
    """
    console = console or Console()
    again = ["l2l-evograd", "prepare", *([] if name is None else [name])]
    again += [word for path in archives for word in ("--archive", str(path))]
    again += [] if remapped is None else ["--remap", remapped]
    again += ["--out", str(out)]
    with _interruptible(again):
        if remapped is not None:
            if archives:
                raise ValueError("expected --archive or --remap, got both")
            _remap(name, remapped, out, console)
        else:
            _prepare(name, archives, out, console)


def _prepare(
    name: str | None, archives: Sequence[Path], out: Path, console: Console
) -> None:
    known = ", ".join(LAYOUTS)
    if name is None:
        raise ValueError(f"expected the name of a data set; choose from {known}")
    if name not in LAYOUTS:
        raise ValueError(f"unknown data set {name!r}; choose from {known}")
    layout = LAYOUTS[name]
    if not archives:
        raise ValueError(
            f"expected {layout.expected}; name each archive, or the folder it was "
            f"unpacked to, with --archive"
        )
    _say_prepared(prepare(layout, archives, out, console), console)


def _say_prepared(made: Prepared, console: Console) -> None:
    for split, images in made.images.items():
        say(console, f"{split}: {made.classes[split]} classes, {images:,} images")
    if not made.unpacked and not made.written:
        say(console, f"{made.folder} has everything already; nothing was changed")
        return
    lists = ", ".join(f"{split}.json" for split in made.written) or "no list"
    say(
        console, f"{made.folder}: {made.unpacked:,} images unpacked and {lists} written"
    )


def _remap(name: str | None, remapped: str, out: Path, console: Console) -> None:
    old, equals, new = remapped.partition("=")
    if not (old and equals and new):
        raise ValueError(
            f"expected --remap OLD=NEW, the folder in the lists and where it is now, "
            f"got {remapped!r}"
        )
    for file, changed in remap(out, old, new, name).items():
        say(console, f"{file}: {changed:,} paths changed")


@contextlib.contextmanager
def _interruptible(again: Sequence[str]) -> Iterator[None]:
    """Let an interrupt of the body say how to go on.

    Raises:
        KeyboardInterrupt: with that text.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(
            f"interrupted; what is done stays, go on with: {shlex.join(again)}"
        ) from interrupt
