"""Commands that fail, each in its own way."""

from l2l_evograd.checks import InputError


def missing_library() -> None:
    raise ModuleNotFoundError("No module", name="some_library.part")


def missing_module() -> None:
    raise ModuleNotFoundError("No module", name="l2l_evograd.nowhere")


def fault() -> None:
    int("not by us")


def bad_input() -> None:
    raise InputError("expected this,\n  got that")


def interrupted() -> None:
    raise KeyboardInterrupt
