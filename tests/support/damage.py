"""Ways to damage the content of a file, and what a reader then says.

Every way is a function of a ``random.Random`` and the content.
"""

import contextlib
import os
import random
import socket
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from faulty import HARMLESS, REFUSED, Fault, within

from l2l_evograd.checks import InputError

# Numbers that break a reader that believes them.
_ODD = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def flipped(chance: random.Random, content: bytes) -> bytes:
    """One to eight bits are the other way round."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(chance: random.Random, content: bytes) -> bytes:
    """The end is missing."""
    return content[: chance.randrange(len(content))]


def swapped(chance: random.Random, content: bytes) -> bytes:
    """Two parts have changed places, or one is there twice or not at all."""
    one, two, three = sorted(chance.randrange(len(content) + 1) for _ in range(3))
    first, second = content[one:two], content[two:three]
    middle = chance.choice((second + first, first + first + second, second))
    return content[:one] + middle + content[three:]


def lying(chance: random.Random, content: bytes) -> bytes:
    """Numbers in the header, or anywhere, are odd ones."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        width = chance.choice((1, 2, 4))
        number = chance.choice(_ODD) % 256**width
        area = min(len(changed), chance.choice((40, 200, len(changed)))) - width
        place = chance.randrange(max(1, area))
        order = chance.choice(("little", "big"))
        changed[place : place + width] = number.to_bytes(width, order)
    return bytes(changed)


def padded(chance: random.Random, content: bytes) -> bytes:
    """Bytes that do not belong there are in the middle."""
    place = chance.randrange(len(content))
    odd = chance.choice((b"\0", b"\xff", b"#", b"1", b"\n", chance.randbytes(7)))
    return content[:place] + odd * chance.choice((1, 100, 5000)) + content[place:]


WAYS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "flipped bits": flipped,
    "cut short": cut,
    "parts swapped or doubled": swapped,
    "numbers that lie": lying,
    "bytes that do not belong there": padded,
}


def special_file(chance: random.Random, path: Path) -> str:
    """Put something at ``path`` that is no file, and return what it is."""
    kind = chance.choice(("pipe", "socket", "device", "folder", "loop", "nowhere"))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        # Names of sockets are short: it is made elsewhere and moved.
        with (
            tempfile.TemporaryDirectory() as folder,
            socket.socket(socket.AF_UNIX) as s,
        ):
            s.bind(f"{folder}/s")
            os.link(f"{folder}/s", path)
    elif kind == "device":
        path.symlink_to(chance.choice(("/dev/zero", "/dev/null", "/dev/random")))
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path if kind == "loop" else path.with_name("nothing"))
    return kind


def outcome(read: Callable[[], object], names: Path, seconds: int = 30) -> str:
    """Return REFUSED if ``read`` refuses in one line that names the file, or HARMLESS.

    Raises:
        Fault: for another error, a warning, a hang, or a line of a C library.
    """
    with said_nothing(), warnings.catch_warnings(), within(seconds, str(names)):
        warnings.simplefilter("error")
        try:
            read()
        except InputError as error:
            text = str(error)
            if names.name not in text or len(text.splitlines()) != 1:
                raise Fault(f"expected one line that names {names}: {text}") from error
            if len(text) > 10_000:
                raise Fault(f"a line of {len(text)} letters: {text[:200]}") from error
            return REFUSED
        except Fault:
            raise
        except BaseException as error:
            raise Fault(f"{names}: {type(error).__name__}: {error}") from error
    return HARMLESS


@contextlib.contextmanager
def said_nothing() -> Iterator[None]:
    """Raise a Fault if the body writes to the standard error stream of the process."""
    with tempfile.TemporaryFile() as file:
        before = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
        file.seek(0)
        text = file.read()
    if text:
        raise Fault(f"on the standard error stream: {text[:200]!r}")


def open_files() -> int:
    """Return the number of open files of this process that are not standard ones."""
    return sum(
        stat.S_ISREG(os.stat(f"/proc/self/fd/{name}").st_mode)
        for name in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{name}")
    )
