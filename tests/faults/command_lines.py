"""Command lines that are wrong or odd: values, options, texts and folders.

Every line would end because its data are missing, so that nothing is trained. A wrong
option has to be refused before that, by name; an odd one that is right must be read as
what it is, which a run that is resumed finds out: it refuses settings that differ.
"""

import os
import random
from collections.abc import Sequence
from pathlib import Path

from faulty import HARMLESS, REFUSED, Ended, Family, Fault, check_refused, ended
from idx import write_digits
from right_lines import (
    KINDS as COMMANDS,
)
from right_lines import (
    NOWHERE,
    RIGHT,
    content_of,
    option_of,
    right_line,
    settings_of_type,
    written,
)

from l2l_evograd import cli
from l2l_evograd.experiments.files import read_object
from l2l_evograd.experiments.folder import make_folder

# Letters of the longest line about an error.
_LONGEST = 2100

# No setting has such a value.
_NUMBERS = (
    *("nan", "NaN", "inf", "-inf", "infinity", "-1", "-0.5", "-1e-30", "1e300", "1e39"),
    *("1e30", "1e999", "9" * 30, "9" * 5000, "1_000", "1__0", "１２", "٣", "", " "),
    *("0x10", "1,5", "1.2.3", "ten", "None", "null", "1e", "--5", "1 2", "\t", "½"),
    *("1\n2", "++1", "10**12", "1e-300", "-9" * 20, "True", "[]", "1/2", "1%"),
    *("\x00", "\udcff", "1\x1b[2J"),
)
_WHOLE = (*_NUMBERS, "2.5", "1e3", "3.0", "1e0", "99999999999")

# What is no path and no name of anything.
_TEXTS = (
    *("", "a\0b", "a\udcffb", "\ud800", "x" * 300, "x" * 5000, "x" * 2**20),
    *("/" * 2**20, "~nobody9/x", "é" * 3000),
)

_DEVICES = (
    *("cpu:5", "cpu:0", "meta", "CPU", "cuda:99", "cuda:-1", "cuda:", "cuda:01", "mps"),
    *("cuda:1_0", "cuda:9999999999", "auto ", "xpu", "cuda:a", "cuda:１"),
)


def value(seed: int, folder: Path) -> str:
    """Give a number that is none, or out of every range."""
    chance = random.Random(f"value {seed}")
    line = right_line(chance)
    types = chance.choice(((int,), (float,), (int, float)))
    names = settings_of_type(line.kind, *types)
    name = chance.choice(names or settings_of_type(line.kind, int))
    whole = name in settings_of_type(line.kind, int)
    text = chance.choice(_WHOLE if whole else _NUMBERS)
    option = option_of(name)
    form = [f"{option}={text}"] if chance.random() < 0.5 else [option, text]
    # Of several values, the last one counts.
    words = [line.kind.command, *line.words, *line.ending(folder), *form]
    return _refused(words, folder, name)


def text(seed: int, folder: Path) -> str:
    """Give a text that is no name, or no path."""
    chance = random.Random(f"text {seed}")
    line = right_line(chance)
    name = chance.choice(settings_of_type(line.kind, str, tuple))
    odd = chance.choice(_TEXTS)
    if name == "device":
        odd = chance.choice((odd, *_DEVICES))
    if name == "unseen":
        odd = chance.choice((odd, f"{odd},cub", f"cub,cars,{odd}", "..,cub", "a/b,cub"))
    words = [line.kind.command, *line.words, *line.ending(folder)]
    words += [f"{option_of(name)}={odd}"]
    if name == "unseen":  # domains are known from the data only
        return _check(ended(words))
    return _refused(words, folder, name)


def spelling(seed: int, folder: Path) -> str:
    """Drop, double, misspell, move or exchange words and letters of a line."""
    chance = random.Random(f"spelling {seed}")
    line = right_line(chance)
    words = list(line.words)
    for _ in range(chance.randint(1, 3)):
        words = _changed(chance, words)
    # In front and at the end, so that no change lets the line train.
    ending = line.ending(folder)
    result = ended([line.kind.command, *ending, *words, *ending])
    if result.code == 0 and {"--help", "--version"} & {*words}:
        return HARMLESS
    _check_nothing(folder)
    return _check(result)


_STRANGE = (
    *("--", "-", "@file", "--no-resume", "--resume=maybe", "--lr", "help", "--help"),
    *("--version", "-x", "--=", "--=3", "=", "--out", "--config", "$HOME", "*", ";"),
    *("--json", "--quiet", "--json=x", "--install-completion", "--show-completion"),
    *("--resume --overwrite", "", "--console", "--given", "--LR", "--lr.x", "\udcff"),
)


def _changed(chance: random.Random, words: list[str]) -> list[str]:
    place = chance.randrange(len(words)) if words else 0
    before, here, after = words[:place], words[place : place + 1], words[place + 1 :]
    way = chance.choice(("drop", "double", "misspell", "add", "move"))
    if way == "drop":
        return before + after
    if way == "double":
        return before + here + here + after
    if way == "add":
        return [*before, chance.choice(_STRANGE), *here, *after]
    if way == "move":
        return chance.sample(words, len(words))
    word = here[0] if here else ""
    at = chance.randrange(len(word) + 1)
    letter = chance.choice("-=_.xX0é٣\0\udcff \n")
    ends = (word[at + 1 :], letter + word[at:])
    return [*before, word[:at] + chance.choice(ends), *after]


def unknown(seed: int, folder: Path) -> str:
    """Add an option that there is not."""
    chance = random.Random(f"unknown {seed}")
    line = right_line(chance)
    name = chance.choice(sorted(RIGHT[line.kind]))
    option = chance.choice(
        (f"-{name}", f"--{name}x", f"--{name[:-2]}", f"--no-{name}", f"--{name}.x")
    )
    return _not_overlooked([*line.whole(folder), option, "1"], option, folder)


def form(seed: int, folder: Path) -> str:
    """Give right values in unusual forms to a run that has them."""
    chance = random.Random(f"form {seed}")
    line = right_line(chance)
    base = line.kind(**{**line.given, "data": str(folder / NOWHERE)})
    make_folder(folder / "run", line.kind.command, base.to_dict())
    words = list(line.whole(folder))
    if chance.random() < 0.3:
        other = [*words, "--resume", *written(chance, "seed", 99)]
        return check_refused(ended(other), "a run is resumed with its own settings")
    result = ended([*words, "--resume"])
    check_refused(result, NOWHERE)
    return HARMLESS


def folders(seed: int, folder: Path) -> str:
    """Name a folder for the results that is none and cannot be made."""
    chance = random.Random(f"folders {seed}")
    (folder / "file").write_text("mine")
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "nowhere").symlink_to(folder / "gone")
    wrong = (
        *("", "a\0b", "a\udcffb", "\ud800", "~nobody9/x", "~nobody9", "x" * 256),
        *("y/" * 3000, "/".join(["z" * 200] * 25), "é" * 200, "x" * 2**20),
        *(f"{folder}/{name}" for name in ("file", "pipe", "loop", "nowhere")),
        *(f"{folder}/{name}/b/c" for name in ("file", "pipe", "loop", "nowhere")),
        *("/dev/null", "/dev/null/x", "/dev/zero", "/proc/nothing/x"),
        f"{folder}{'/q' * 1900}",
    )
    command, option, more = chance.choice(
        (
            *((kind.command, "--out", ()) for kind in COMMANDS),
            ("illustrate", "--out", ("--trials", "2")),
            ("search", "--out", ("rotation",)),
            ("report", "--to", (str(folder / NOWHERE),)),
            ("prepare", "--out", ("cub", "--archive", str(folder / NOWHERE))),
        )
    )
    place = chance.choice(wrong)
    data = ["--data", str(folder / NOWHERE)] if (command, more) in _WITH_DATA else []
    before = content_of(folder)
    result = ended([command, *more, *data, f"{option}={place}"])
    if content_of(folder) != before:
        raise Fault(f"{command} {option}={place[:80]!r} wrote something: {result}")
    return _check(result)


_WITH_DATA = [(kind.command, ()) for kind in COMMANDS]


def search(seed: int, folder: Path) -> str:
    """Give a search a space, a length or a setting that is none."""
    chance = random.Random(f"search {seed}")
    name = chance.choice(("lr", "meta_lr", "candidates", "iterations", "batch-size"))
    number, other = chance.choice(_NUMBERS), chance.choice(_NUMBERS)
    odd, whole = chance.choice(_TEXTS), chance.choice(_WHOLE)
    wrong = (
        f"--space={name}={number}..{other}",
        f"--space={name}=2..{number}",
        f"--space={name}={number}..3:log",
        f"--space={name}=1..2:{chance.choice(('lin', 'log2', 'LOG', ':log'))}",
        f"--space={name}=2,{number}",
        f"--space={name}=2,2",
        f"--space={name}={','.join(map(str, range(1, 2000)))}",
        f"--space={name}",
        f"--space={odd}",
        f"--space=seed=1..{number}",
        "--space=methods=none,evograd",
        f"--set={name}={number}",
        f"--set={odd}=1",
        f"--set=methods={odd},none",
        f"--fidelity={number}..{other}",
        f"--fidelity={chance.choice(('3', '9..3', '1..3:log', '..', '1..', '0..3'))}",
        f"--budget={number}",
        f"--workers={whole}",
        f"--eta={chance.choice(('1', '0', whole))}",
    )
    words = ["search", "rotation", "--out", str(folder / "run")]
    words += ["--set", f"data={folder / NOWHERE}", chance.choice(wrong)]
    return _not_overlooked(words, words[-1][:80], folder)


def extreme(seed: int, folder: Path) -> str:
    """Train with values at the ends of their ranges, to the end or to one line."""
    chance = random.Random(f"extreme {seed}")
    write_digits(folder / "mnist", "t10k", 60)
    method = chance.choice(("none", "evograd", "guided", "exact"))
    words = ["rotation", "--methods", method, "--seeds", "1", "--iterations", "3"]
    words += ["--batch-size", str(chance.choice((1, 4, 200)))]
    for option, ends in _ENDS.items():
        if chance.random() < 0.5:
            words += [option, chance.choice(ends)]
    words += ["--data", str(folder / "mnist"), "--out", str(folder / "run")]
    result = ended(words)
    if result.code:
        return check_refused(result)
    read_object(folder / "run" / "results.json")  # refuses NaN
    return HARMLESS


_ENDS = {
    "--lr": ("1e-12", "1e6"),
    "--meta-lr": ("1e-12", "1e6"),
    "--sigma": ("1e-6", "100"),
    "--temperature": ("1e-12", "1e-6", "1e6"),
    "--h": ("1e-6", "100"),
    "--candidates": ("2", "5"),
    "--seed": ("0", "4294967295"),
}


def _refused(words: list[str], folder: Path, *names: str) -> str:
    result = ended(words)
    _check_nothing(folder)
    said = _check(result)
    if not any(n in result.err or option_of(n) in result.err for n in names):
        raise Fault(
            f"expected one of {names}, got {result.err[:300]!r} for {words[-2:]}"
        )
    return said


def _check(result: Ended) -> str:
    check_refused(result)
    if len(result.err) > _LONGEST or not result.err.rstrip("\n").isprintable():
        raise Fault(f"expected a line that can be read, got {result.err[:300]!r}")
    if result.code != cli.BAD_INPUT or result.out:
        raise Fault(
            f"expected nothing on the standard output, got {result.out[:300]!r}"
        )
    return REFUSED


def _not_overlooked(words: Sequence[str], fault: str, folder: Path) -> str:
    """Run a command line whose data do not exist; the fault must be named first."""
    result = ended(words)
    _check_nothing(folder)
    if NOWHERE in result.err:
        raise Fault(f"{fault!r} was overlooked: {result}")
    return _check(result)


def _check_nothing(folder: Path) -> None:
    if any(folder.iterdir()):
        raise Fault(f"expected nothing to be written, got {list(folder.iterdir())}")


KINDS: Family = {
    "a number that is none or out of range": value,
    "a text that is no name and no path": text,
    "words dropped, doubled, misspelt or moved": spelling,
    "an option that there is not": unknown,
    "right values in unusual forms": form,
    "a folder that cannot be one": folders,
    "a space or length of a search that is none": search,
    "values at the ends of their ranges": extreme,
}
