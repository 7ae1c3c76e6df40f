import io
import os
import sys

import pytest

from l2l_evograd import cli
from l2l_evograd.streams import Steady, steady_output


class Failing(io.StringIO):
    """A stream that takes a few texts and then raises an error."""

    def __init__(self, error: Exception, takes: int = 1) -> None:
        super().__init__()
        self._error, self._takes = error, takes

    def write(self, text: str) -> int:
        if self._takes == 0:
            raise self._error
        self._takes -= 1
        return super().write(text)


@pytest.mark.parametrize(
    "error", [BrokenPipeError(32, "gone"), OSError(28, "full"), ValueError("closed")]
)
def test_the_first_error_is_kept_and_nothing_is_written_after_it(error):
    inner = Failing(error)
    steady = Steady(inner, own=False)
    for text in "abc":
        assert steady.write(text) == 1
    steady.flush()
    assert inner.getvalue() == "a"
    assert isinstance(steady.failure, OSError)
    assert isinstance(steady.failure, type(error) if error.args[0] == 28 else OSError)


def test_letters_that_the_stream_has_not_are_escaped():
    raw = io.BytesIO()
    steady = Steady(io.TextIOWrapper(raw, encoding="ascii"), own=False)
    steady.write("0.5 ± 0.1, λ \ud800")
    steady.flush()
    assert raw.getvalue() == rb"0.5 \xb1 0.1, \u03bb \ud800"
    assert steady.failure is None and steady.encoding == "ascii"


def test_a_closed_stream_takes_everything():
    steady = Steady(None, own=True)
    assert steady.write("a") == 1 and not steady.isatty() and steady.writable()
    steady.flush()
    assert steady.failure is None
    with pytest.raises(io.UnsupportedOperation):
        steady.fileno()


def test_what_is_left_in_the_buffer_goes_nowhere_when_nobody_reads():
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    steady = Steady(stream, own=True)
    steady.write("a")
    steady.flush()
    assert isinstance(steady.failure, BrokenPipeError)
    stream.close()  # it would raise the error again


def test_the_standard_output_is_as_before_afterwards(capsys):
    before = sys.stdout
    with steady_output(own=False) as output:
        assert sys.stdout is output
        print("a")
    assert sys.stdout is before and capsys.readouterr().out == "a\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BrokenPipeError(32, "Broken pipe"), 0, ""),
        (OSError(28, "No space left"), 2, "cannot write to the standard output (No sp"),
    ],
)
def test_a_command_says_at_its_end_what_could_not_be_written(
    error, code, said, capsys, monkeypatch
):
    monkeypatch.setattr(sys, "stdout", Failing(error, takes=0))
    assert cli.main(["--version"]) == code
    assert said in capsys.readouterr().err


def test_nothing_is_said_elsewhere_if_the_error_stream_is_closed(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.main(["nothing"]) == 2
    assert capsys.readouterr().out == ""
