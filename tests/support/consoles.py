"""A console that nobody sees."""

import io

from rich.console import Console


def silent_console() -> Console:
    return Console(file=io.StringIO(), width=100)
