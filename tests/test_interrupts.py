import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from l2l_evograd import interrupts
from l2l_evograd.interrupts import Guard, Interrupt, check, deferred, run, telling

# The module by itself, because the package loads torch.
SCRIPT = f"""
import importlib.util, os, signal, sys, time
spec = importlib.util.spec_from_file_location("interrupts", {interrupts.__file__!r})
interrupts = importlib.util.module_from_spec(spec)
spec.loader.exec_module(interrupts)

def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)

def go_on():
    for _ in range(3000):
        time.sleep(0.01)
    return 0, "nothing came"

"""


def ended(work: str, patience: float = 30.0) -> tuple[int, str]:
    """Return how a process ends that runs the body of a function as its command."""
    script = SCRIPT + "def work():\n" + work
    script += f"\nsys.exit(interrupts.Guard(True, {patience}).run(work))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=100
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_one_line_and_an_exit_code(kind):
    code, said = ended(f"    send({int(kind)})\n    return go_on()")
    assert (code, said) == (128 + kind, "interrupted; give the command again\n")


def test_a_second_signal_does_not_disturb_what_the_first_has_begun():
    body = (
        "    try:\n        send()\n        return go_on()\n"
        "    finally:\n        send(signal.SIGINT); send(); time.sleep(0.2)"
    )
    assert ended(body) == (143, "interrupted; give the command again\n")


def test_an_interrupt_that_a_finalizer_swallows_comes_again():
    body = (
        "    class Slow:\n        def __del__(self):\n"
        "            send(); time.sleep(0.1)\n"
        "    Slow()\n    return go_on()"
    )
    assert ended(body) == (143, "interrupted; give the command again\n")


def test_a_process_that_loses_every_interrupt_is_ended():
    body = (
        "    send(signal.SIGINT)\n    while True:\n"
        "        try:\n            go_on()\n"
        "        except BaseException:\n            pass"
    )
    assert ended(body, 0.3) == (130, "interrupted; give the command again\n")


def test_a_process_that_waits_outside_of_python_is_ended():
    # An interpreter that runs no bytecode never sees the exception of a signal.
    body = (
        "    import ctypes, threading\n"
        "    threading.Timer(0.3, send).start()\n"
        "    mutex = ctypes.create_string_buffer(64)\n"
        "    for _ in range(2):\n"
        "        ctypes.CDLL(None).pthread_mutex_lock(mutex)"
    )
    assert ended(body, 0.3) == (143, "interrupted; give the command again\n")


def test_another_error_after_a_signal_is_an_interrupt():
    body = (
        "    with interrupts.telling(lambda: 'go on'):\n"
        "        try:\n            send()\n            go_on()\n"
        "        except KeyboardInterrupt:\n            raise ImportError('lost')"
    )
    assert ended(body) == (143, "go on\n")


def test_what_fails_elsewhere_ends_the_command():
    body = (
        "    import threading\n"
        "    fail = interrupts.current().fail\n"
        "    threading.Timer(0.2, fail, ['the other died']).start()\n"
        "    return go_on()"
    )
    assert ended(body) == (2, "error: the other died\n")


def test_a_signal_that_is_ignored_stays_so():
    begin = "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    script = SCRIPT + begin + "def work():\n    send(signal.SIGHUP)\n    return 0, ''"
    script += "\nsys.exit(interrupts.Guard(True).run(work))"
    assert subprocess.run([sys.executable, "-c", script], timeout=100).returncode == 0


def test_handlers_are_as_before_after_a_command(capsys):
    before = [signal.getsignal(number) for number in interrupts.SIGNALS]

    def work():
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(30)
        return 0, ""

    assert run(work, own=False) == 143
    assert capsys.readouterr().err == "interrupted; give the command again\n"
    assert [signal.getsignal(number) for number in interrupts.SIGNALS] == before
    assert interrupts.current() is None


def test_a_command_in_another_thread_leaves_the_signals_alone():
    codes = []
    thread = threading.Thread(
        target=lambda: codes.append(run(lambda: (7, ""), own=False))
    )
    thread.start()
    thread.join()
    assert codes == [7]


def test_of_several_texts_the_outermost_is_told():
    with (
        pytest.raises(Interrupt, match="^outer$"),
        telling(lambda: "outer"),
        telling(lambda: "inner"),
    ):
        raise KeyboardInterrupt
    check()  # nothing has come


def test_a_deferred_signal_comes_after_the_body():
    done = []
    with pytest.raises(KeyboardInterrupt), deferred():
        os.kill(os.getpid(), signal.SIGINT)
        done.append("body")
    assert done == ["body"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_processes_forked_from_a_command_do_not_have_its_handlers(tmp_path):
    def work():
        child = os.fork()
        if child == 0:
            handlers = map(signal.getsignal, (signal.SIGTERM, signal.SIGHUP))
            os._exit(int(any(handler != signal.SIG_DFL for handler in handlers)))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), ""

    assert run(work, own=False) == 0


def test_the_module_loads_nothing_heavy():
    assert "import torch" not in Path(interrupts.__file__).read_text()
    assert Guard(own=False).number is None
