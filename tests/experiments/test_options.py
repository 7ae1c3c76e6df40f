import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from cyclopts import App, CycloptsError, Parameter

from l2l_evograd.experiments.options import as_command
from l2l_evograd.experiments.settings import Names, RunSettings, setting


@dataclass(frozen=True, kw_only=True)
class Settings(RunSettings):
    """A few settings."""

    command: ClassVar[str] = "some"

    methods: Names = setting(("a", "b"), "Methods.", choices="abc")
    ways: int = setting(5, "Classes.", least=2)
    size: int | None = setting(None, "Size.", if_none="the images' own")
    rate: float = setting(0.1, "Rate.", positive=True)
    augment: bool = setting(False, "Augment.")


def some(given: Mapping[str, Any], *, out: str = "here") -> tuple[dict[str, Any], str]:
    """Do something.

    Args:
        given: the settings that the user gave.
        out: Where to.
    """
    return dict(given), out


@pytest.fixture
def app() -> App:
    made = App(
        name="x",
        default_parameter=Parameter(allow_repeating=True),
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
    )
    made.command(as_command(some, Settings), name="some")
    return made


def test_only_what_the_user_gave_arrives(app):
    assert app(["some"]) == ({}, "here")
    # A value that is the default as well was given all the same.
    assert app(["some", "--ways", "5", "--out", "there"]) == ({"ways": 5}, "there")


def test_every_type_of_setting_is_an_option(app):
    given, _ = app(
        ["some", "--methods", "c, a", "--size", "7", "--rate", "1", "--augment"]
    )
    assert given == {"methods": ("c", "a"), "size": 7, "rate": 1.0, "augment": True}


@pytest.mark.parametrize(
    "line", [["--ways", "x"], ["--ways=2.5"], ["--nothing", "1"], ["--rate"]]
)
def test_what_does_not_parse_is_an_error(line, app):
    with pytest.raises(CycloptsError):
        app(["some", *line])


def test_help_and_default_are_those_of_the_setting(app, capsys):
    app(["some", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert "Do something." in shown and "Where to. [default: here]" in shown
    assert "Methods. Choices: a, b, c. [default: a,b]" in shown
    assert "Classes. [default: 5]" in shown
    assert "Size. [default: the images' own]" in shown


def test_the_last_of_several_values_counts(app):
    line = ["--ways", "3", "--methods", "a", "--ways", "4", "--methods", "b,c"]
    assert app(["some", *line])[0] == {"ways": 4, "methods": ("b", "c")}


def test_settings_in_a_file_give_way_to_options(app, tmp_path):
    path = tmp_path / "best.json"
    path.write_text(
        json.dumps({"ways": 3, "rate": 0.5, "methods": ["b"], "size": None})
    )
    given, out = app(["some", "--config", str(path), "--ways", "4"])
    assert given == {"ways": 4, "rate": 0.5, "methods": ("b",)} and out == "here"


def test_a_function_may_read_the_file_itself_and_have_an_argument():
    def other(
        given: Mapping[str, Any], place: str, *, config: str | None = None
    ) -> tuple[dict[str, Any], str, str | None]:
        """Do something.

        Args:
            given: the settings that the user gave.
            place: Where to.
            config: A file.
        """
        return dict(given), place, config

    made = App(result_action="return_value")
    made.command(as_command(other, Settings), name="other")
    line = ["other", "there", "--config", "x", "--ways", "4"]
    assert made(line) == ({"ways": 4}, "there", "x")
