"""Signals that end a command: SIGINT (Ctrl-C), SIGTERM and SIGHUP.

The first signal raises :class:`Interrupt` in the main thread, and later ones change
nothing: what was begun is cleaned up, and the command line prints one line. A thread
watches. Where the main thread has not ended in time, because it waits in a library or
because a library lost the exception, the thread prints the line and ends the process.

A signal that is ignored when a command begins stays ignored, as ``nohup`` wants it.

This module imports nothing that takes time: the package loads it before torch.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)
)

# Environment variable of a process that another process of the run has started: the
# number of the first process.
FIRST = "L2L_EVOGRAD_FIRST_PROCESS"

# Seconds that the main thread has to end after a signal.
PATIENCE = 6.0

# Seconds in which a process that is not the first waits to be ended by it, before it
# tells an error that the first process has usually told already.
_MANNERS = 3.0

_FAILED = 2
_AGAIN = "interrupted; give the command again"


class Interrupt(KeyboardInterrupt):
    """A signal. Its text tells the user how to go on.

    Args:
        text: what the command line prints.
        number: the signal.
    """

    def __init__(self, text: str = _AGAIN, number: int = signal.SIGINT) -> None:
        super().__init__(text)
        self.number = number


class Guard:
    """The handlers of signals, from :meth:`begin` to the end of one command.

    Args:
        own: whether the process exists for this command alone. Then the handlers stay
            to its end, and the watching thread may end it.
        patience: seconds that the main thread has to end after a signal.

    Attributes:
        number: the signal that came first; None: none came.
        failure: why the command has to end, where another process of it died.
    """

    def __init__(self, own: bool, patience: float = PATIENCE) -> None:
        self.own = own
        self._patience = patience
        self.number: int | None = None
        self.failure: str | None = None
        self._before: dict[int, Any] = {}
        self._entered = self._raised = self._finished = self._told = False
        self._swallowed = False
        self._code = 0
        self._pipe: tuple[int, int] | None = None
        self._parent = _parent()

    def begin(self) -> None:
        """Take the signals that end the process or raise KeyboardInterrupt so far."""
        if self._pipe is not None or not _can_handle():
            return
        usual = (signal.SIG_DFL, signal.default_int_handler)
        self._pipe = os.pipe()
        for end in self._pipe:
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        if self.own:
            sys.unraisablehook = self._unraisable
        for number in SIGNALS:
            if signal.getsignal(number) in usual:
                self._before[number] = signal.signal(number, self._handle)
        threading.Thread(target=self._watch, name="signals", daemon=True).start()

    def again(self) -> None:
        """Take the signals again, after a library has taken them."""
        if self._pipe is not None and not self._finished and _can_handle():
            for number in self._before:
                if signal.getsignal(number) != self._handle:
                    signal.signal(number, self._handle)
            signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)

    def run(self, work: Callable[[], tuple[int, str]]) -> int:
        """Run a command to its end, print its line, and return its exit code.

        Args:
            work: runs the command; returns the exit code and a line for the standard
                error stream, which may be empty.
        """
        global _guard
        outer, _guard = _guard, self
        try:
            return self._run(work)
        finally:
            _guard = outer

    def _run(self, work: Callable[[], tuple[int, str]]) -> int:
        code, line = 0, ""
        error: BaseException | None = None
        # The exception of a signal comes once, but anywhere in here.
        try:
            try:
                self.begin()
                self._entered = True
                code, line = work()
                self._finish()
            except BaseException as caught:
                error = caught
                self._finish()
        except Interrupt as caught:
            error = error or caught
            self._finish()
        if self.failure is not None:
            code, line, error = _FAILED, self.failure and f"error: {self.failure}", None
        elif self.number is not None or isinstance(error, KeyboardInterrupt):
            code = 128 + (self.number or signal.SIGINT)
            told = error if isinstance(error, KeyboardInterrupt) else None
            line, error = str(told or "") or _AGAIN, None
        self._code = code if error is None else 1
        if follows() and (line or error is not None):
            time.sleep(_MANNERS)
        _end_others(bool(self._code))
        self._told = True
        if error is not None:
            raise error
        if line:
            _write(line)
        return code

    def fail(self, failure: str) -> None:
        """End the command with one line, from any thread.

        Args:
            failure: the line; empty: another process has printed it.
        """
        self.failure = failure
        self._wake()
        self._kill_main(next(iter(self._before), None))

    def interrupt(self, number: int) -> None:
        """Go on as if this process had received a signal; from any thread."""
        self._wake(number)
        self._kill_main(number if number in self._before else None)

    def _handle(self, number: int, _: Any) -> None:
        if follows():
            os._exit(128 + number)
        if not self._entered:
            self._force(number)
        if self._finished or self._raised:
            return
        self.number = self.number or number
        self._raised = True
        raise Interrupt(number=number)

    def _unraisable(self, unraisable: Any) -> None:
        """Raise a signal's exception again that was lost in a finalizer."""
        if isinstance(unraisable.exc_value, Interrupt):
            self._swallowed = True
            self._wake()
        elif not self._raised:
            sys.__unraisablehook__(unraisable)

    def _finish(self) -> None:
        """Leave the signals: they end nothing any more."""
        if self._finished:
            return
        if self._pipe is None or not _can_handle():
            self._finished = True
            return
        for number, before in self._before.items():
            if self.own:
                signal.signal(number, signal.SIG_IGN)
            elif signal.getsignal(number) == self._handle:
                signal.signal(number, before)
        self._finished = True
        if not self.own:
            signal.set_wakeup_fd(-1)
        self._wake()

    def _wake(self, number: int = 0) -> None:
        if self._pipe is not None:
            with contextlib.suppress(OSError):
                os.write(self._pipe[1], bytes([number]))

    def _kill_main(self, number: int | None) -> None:
        ident = threading.main_thread().ident
        if number is not None and ident is not None:
            signal.pthread_kill(ident, number)

    def _watch(self) -> None:
        """Wait for signals, which wake this thread even if the main thread waits."""
        assert self._pipe is not None
        number: int | None = None
        deadline: float | None = None
        while True:
            waits = deadline is not None or self._parent is not None
            if select.select([self._pipe[0]], [], [], 0.1 if waits else None)[0]:
                came = [n for n in os.read(self._pipe[0], 512) if n in self._before]
                number = number or next(iter(came), None)
            if self._finished and not self.own:
                for end in self._pipe:
                    os.close(end)
                return
            if number is not None and follows():
                os._exit(128 + number)
            if self._parent is not None and os.getppid() != self._parent:
                self._orphaned()
            ending = number is not None or self.failure is not None or self._finished
            if ending and deadline is None:
                deadline = time.monotonic() + self._patience
            if self._swallowed and not self._finished:
                self._swallowed = self._raised = False
                self._kill_main(number)
            if deadline is not None and time.monotonic() > deadline and self.own:
                self._force(number)

    def _orphaned(self) -> None:
        if follows():
            os._exit(1)
        self._parent = None
        self.fail("the launcher of this process died; start the run again with it")

    def _force(self, number: int | None) -> None:
        """End the process, wherever the main thread is."""
        if not self._told:
            if self.failure is not None:
                line, self._code = self.failure and f"error: {self.failure}", _FAILED
            elif number is not None and not self._finished:
                line, self._code = _text(), 128 + number
            else:
                line = ""
            _end_others(True)
            # Not by print: the main thread may hold the stream, or nobody may read it.
            if line and select.select([], [2], [], 1.0)[1]:
                os.write(2, f"{line}\n".encode())
        os._exit(self._code)


_guard: Guard | None = None
_texts: list[Callable[[], str]] = []
_others: list[Callable[[bool], None]] = []


def begin_with_process() -> None:
    """Take the signals in a process that is the command ``l2l-evograd``.

    Until the command begins there is nothing to clean up, and a signal ends the process
    at once.
    """
    global _guard
    if _guard is None:
        _guard = Guard(own=True)
        _guard.begin()


def run(work: Callable[[], tuple[int, str]], *, own: bool) -> int:
    """Run a command as :meth:`Guard.run`, and leave the handlers as they were.

    Args:
        work: as for :meth:`Guard.run`.
        own: whether the process exists for this command alone; its handlers stay.
    """
    guard = _guard if own and _guard is not None else Guard(own)
    return guard.run(work)


@contextlib.contextmanager
def telling(text: Callable[[], str]) -> Iterator[None]:
    """Let an interrupt of the body tell the user how to go on.

    An exception of a signal that a library has lost or replaced is raised at the end of
    the body. Of several texts around each other, the outermost is told.

    Args:
        text: function that returns the text.

    Raises:
        Interrupt: when the body is interrupted.
    """
    _texts.append(text)
    try:
        yield
        check()
    except BaseException as error:
        number = None if _guard is None else _guard.number
        if number is None and not isinstance(error, KeyboardInterrupt):
            raise
        if number is None:
            number = getattr(error, "number", int(signal.SIGINT))
        raise Interrupt(text(), number) from error
    finally:
        _texts.remove(text)


def check() -> None:
    """Take the signals again, and raise the exception of one that was lost.

    Raises:
        Interrupt: if a signal has come.
    """
    if _guard is not None:
        _guard.again()
        if _guard.number is not None:
            raise Interrupt(number=_guard.number)


def current() -> Guard | None:
    """Return the guard of the command that runs; None: there is none."""
    return _guard


def at_end(function: Callable[[bool], None]) -> None:
    """Call a function when the command ends, with whether it failed."""
    _others.append(function)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Let the body come to its end; raise the exception of a signal afterwards.

    The processes and threads that the body starts do not receive the signals, which a
    terminal sends to all processes: this one ends them. Does nothing outside the main
    thread, whose matter signals are.
    """
    if not _can_handle():
        yield
        return
    came: list[int] = []

    def tell() -> None:
        if came:
            signal.raise_signal(came[0])

    with contextlib.ExitStack() as stack:  # undone from the last to the first
        stack.callback(tell)
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                stack.callback(signal.signal, number, handler)
                signal.signal(number, lambda number, _: came.append(number))
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, blocked)
        yield


def _can_handle() -> bool:
    main = threading.current_thread() is threading.main_thread()
    return main and hasattr(signal, "pthread_kill")


def is_command() -> bool:
    """Return whether the process was started as the command, by script or by -m.

    Processes that libraries start have the script's name in ``sys.argv``, too, but not
    in what they were started with.
    """
    script, started = (sys.argv or [""])[0], sys.orig_argv
    if script == "-m":
        return "l2l_evograd.cli" in started
    return script in started and os.path.basename(script).startswith("l2l-evograd")


def follows() -> bool:
    """Return whether another process of the run prints what there is to say."""
    if FIRST not in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:
        return False
    rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
    return rank.isdecimal() and int(rank) > 0  # the command refuses other texts later


def _parent() -> int | None:
    """Return the process without which this one cannot go on, if there is one."""
    if follows() and FIRST in os.environ:
        return int(os.environ[FIRST])
    return os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None


def _text() -> str:
    return _texts[0]() if _texts else _AGAIN


def _end_others(failed: bool) -> None:
    while _others:
        _others.pop()(failed)


def _write(line: str) -> None:
    if sys.stderr is None:  # closed; print would take the standard output instead
        return
    with contextlib.suppress(OSError, ValueError):  # the terminal may be gone
        print(line, file=sys.stderr, flush=True)


def _after_fork() -> None:
    """Leave the signals to the process that was forked."""
    global _guard
    if _guard is None:
        return
    signal.set_wakeup_fd(-1)
    for number in _guard._before:
        if signal.getsignal(number) == _guard._handle:
            signal.signal(number, signal.SIG_DFL)
    sys.unraisablehook = sys.__unraisablehook__
    _guard = None
    _texts.clear()
    _others.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
