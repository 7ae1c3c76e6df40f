"""Files for the option ``--config`` that are damaged, odd, or no files.

As in :mod:`command_lines`, the data are missing, so that nothing is trained. A wrong
file has to be refused by name; an odd one that is right is compared with a run.
"""

import json
import os
import random
from pathlib import Path
from typing import Any

from damage import WAYS
from faulty import HARMLESS, REFUSED, Family, Fault, check_refused, ended
from right_lines import NOWHERE, Line, option_of, right_line, settings_of_type

from l2l_evograd.experiments.folder import make_folder

_FILE = "best.json"
_ENDINGS = ("", ".json", ".yaml", ".toml", ".ini")

_ODD: tuple[Any, ...] = (
    *(True, False, -1, 0.5, 10**30, 10**400, 1e308, -1e308, "", "1", "nan", [], [[]]),
    *(
        {},
        {"a": 1},
        ["a"],
        [1],
        ["none", "none"],
        [None],
        "\ud800",
        "a\0b",
        "x" * 10**5,
    ),
    *([{"a": [1]}], -(10**30)),
)

_NAMES = (
    *(
        "",
        "way",
        "Ways",
        "ways ",
        "meta lr",
        "\ud800",
        "a\0b",
        "x" * 10**5,
        "__class__",
    ),
    *("given", "self", "command ", "settings", "out"),
)


def odd_value(seed: int, folder: Path) -> str:
    """Give a setting a value of another type, or out of every range."""
    chance = random.Random(f"odd value {seed}")
    line = right_line(chance)
    content = _content(line, folder)
    types = chance.choice(((int,), (float,), (bool,), (tuple,), (str,)))
    name = chance.choice(settings_of_type(line.kind, *types) or ["methods"])
    odd = chance.choice([odd for odd in _ODD if not _may_be(types[0], odd)])
    content[name] = odd
    return _refused(line, json.dumps(content), folder, name)


def odd_name(seed: int, folder: Path) -> str:
    """Name a setting that there is not, or a command that is another one."""
    chance = random.Random(f"odd name {seed}")
    line = right_line(chance)
    content = _content(line, folder)
    if chance.random() < 0.3:
        content["command"] = chance.choice(("search", "", 3, None, [], "\ud800"))
        if content["command"] is None:
            content["command"] = {}
    else:
        content[chance.choice(_NAMES)] = chance.choice((1, "a", None, *_ODD))
    return _refused(line, json.dumps(content), folder, "")


def odd_text(seed: int, folder: Path) -> str:
    """Write a text that is no JSON, or no object, or says things twice."""
    chance = random.Random(f"odd text {seed}")
    line = right_line(chance)
    text = json.dumps(_content(line, folder))
    deep = chance.choice((10**3, 10**4, 10**5))
    name = chance.choice(settings_of_type(line.kind, int, float))
    wrong = (
        *("", " ", "null", "[]", "3", '"a"', "{", text[:-1], text + text, text + "x"),
        *("[" * deep, '{"a":' * deep, "[" * deep + "]" * deep, "\ufeff" + text),
        f'{{"{name}": {"9" * 5000}}}',
        f'{{"{name}": {"[" * deep}{"]" * deep}}}',
        *(f'{{"{name}": {odd}}}' for odd in ("NaN", "Infinity", "-Infinity", "1e999")),
        f'{{"{name}": 3, "{name}": 4}}',
        f'{{"{name}": 0x10}}',
        f"{{{name}: 3}}",
        f"{{'{name}': 3}}",
        f'{{"{name}": 3,}}',
        f'{{"{name}": 3}} // why',
        text.encode("utf-16").decode("latin-1"),
        "\0" * 100,
        " " * 2**21 + text,
    )
    return _refused(line, chance.choice(wrong), folder, "")


def damaged(seed: int, folder: Path) -> str:
    """Damage some bytes of a right file."""
    chance = random.Random(f"damaged {seed}")
    line = right_line(chance)
    way = chance.choice(list(WAYS.values()))
    path = folder / _FILE
    path.write_bytes(way(chance, json.dumps(_content(line, folder)).encode()))
    result = ended([line.kind.command, "--config", str(path), *line.ending(folder)])
    _check_alone(folder)
    check_refused(result)
    if NOWHERE not in result.err and _FILE not in result.err:
        raise Fault(f"expected the file to be named, got {result.err[:300]!r}")
    return HARMLESS if NOWHERE in result.err else REFUSED


def no_file(seed: int, folder: Path) -> str:
    """Name something that is no file, or has no end."""
    chance = random.Random(f"no file {seed}")
    line = right_line(chance)
    (folder / "loop").symlink_to(folder / "loop")
    for ending in _ENDINGS:
        (folder / f"folder{ending}").mkdir()
        os.mkfifo(folder / f"pipe{ending}")
    places = [
        folder / f"{name}{ending}"
        for name in ("loop", "folder", "pipe", "missing", "folder/x")
        for ending in _ENDINGS
    ]
    places += [
        "/dev/zero",
        "/dev/null",
        "/dev/stdin",
        "/proc/self/mem",
        "",
        "~nobody9/x",
    ]
    places += ["x" * 300, "a\0b", "\ud800", "a/" * 3000, f"{folder}/pipe/x"]
    place = chance.choice(places)
    result = ended([line.kind.command, f"--config={place}", *line.ending(folder)])
    if (folder / "run").exists() or NOWHERE in result.err:
        raise Fault(f"{place[:80]!r} was read: {result}")
    return check_refused(result)


def unusual(seed: int, folder: Path) -> str:
    """Write right settings in an unusual form, for a run that has them."""
    chance = random.Random(f"unusual {seed}")
    line = right_line(chance)
    content = _content(line, folder)
    run = line.kind(**{**line.given, "data": str(folder / NOWHERE)})
    make_folder(folder / "run", line.kind.command, run.to_dict())
    names = chance.sample(sorted(content), len(content))
    ordered = {name: content[name] for name in names}
    if chance.random() < 0.5:
        ordered["command"] = line.kind.command
    if chance.random() < 0.3:
        ordered["data"] = None
    text = json.dumps(
        ordered,
        indent=chance.choice((None, 0, 7, "\t")),
        separators=chance.choice(((",", ":"), (" ,\n", " :\r\n "))),
    )
    text = chance.choice((text, f"\n\n{text}\t ", text.replace('"e', '"\\u0065', 1)))
    path = folder / _FILE
    path.write_text(text.replace("0.25", chance.choice(("0.25", "25e-2", "0.250"))))
    words = [line.kind.command, "--resume", *line.ending(folder)]
    check_refused(ended([*words, "--config", str(path)]), NOWHERE)
    return HARMLESS


def odd_yaml(seed: int, folder: Path) -> str:
    """Write a text that is no YAML, or uses what no settings need."""
    chance = random.Random(f"odd yaml {seed}")
    line = right_line(chance)
    name = chance.choice(settings_of_type(line.kind, int, float))
    text = _as_yaml(chance, line)
    deep = chance.choice((10**2, 10**4, 3 * 10**4))
    many = "\n".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]" for n in _NINE)
    wrong = (
        *("[]", "3", "a", "- 3", "[a, b", "{a: 1"),
        *("[" * deep, "- " * deep, "{a: " * deep, "? " * deep, "a: b: c", "\t" + text),
        *(f"{text}---\n{text}", f"&a\n{text}", f"!!python/object:os.system\n{text}"),
        f"x0: &x0 [a, b]\n{many}",
        f"{text}<<: *everything\n",
        f"{text}{name}: 3\n{name}: 4\n",
        f"{text}{option_of(name)[2:]}-x: 3\n",
        f"{text}? [{name}]\n: 3\n",
        f"{text}yes\n",
        f"{text}{name}: !!int 3\n",
        f"{text}{name}: !!python/object/apply:os.getpid []\n",
        *(f"{name}: {odd}\n" for odd in _ODD_YAML),
        f"{name}: {'9' * 5000}\n",
        f"{name}: '\a'\n",
        text.encode("utf-16").decode("latin-1"),
        "\0" * 100,
        text + " " * 2**17,
    )
    return _refused(line, chance.choice(wrong), folder, "", "best.yaml")


_NINE = range(1, 10)
_ODD_YAML = (
    *(".nan", "-.inf", "1_000", "0x10", "0o17", "1:30", "yes", "2020-01-01", "'3'"),
    *(
        "1e",
        "1e999",
        "[3]",
        "{a: 3}",
        "- 3",
        "|\n  3",
        "*a",
        "&a 3",
        "!x 3",
        "@3",
        "`3",
    ),
    *("%3", "3 4", "3,4", "--3", "½", "３"),
)


def odd_toml(seed: int, folder: Path) -> str:
    """Write a text that is no TOML, or has values that no settings have."""
    chance = random.Random(f"odd toml {seed}")
    line = right_line(chance)
    name = chance.choice(settings_of_type(line.kind, int, float))
    text = _as_toml(chance, line)
    deep = chance.choice((10**2, 10**3, 10**4, 3 * 10**4))
    wrong = (
        *("a", "=", "[", "[]", "[a", "a = ", "a = [", '{"a": 1}', "a: 1", "[[a]]"),
        *(
            f"a = {'[' * deep}",
            f"a = {'[' * deep}{']' * deep}",
            f"a = {'{a = ' * deep}",
        ),
        *(f"{'a.' * deep}a = 1", f"[{'a.' * deep}a]", f"{text}[table]\na = 1\n"),
        *(f"{name} = {odd}\n" for odd in _ODD_TOML),
        f"{name} = 3\n{name} = 4\n",
        f"{name} = {'9' * 5000}\n",
        f"{name} = 3 {name} = 4\n",
        f"{name}.x = 3\n",
        f"[{name}]\nx = 3\n",
        text.encode("utf-16").decode("latin-1"),
        "\0" * 100,
        text + " " * 2**17,
    )
    return _refused(line, chance.choice(wrong), folder, "", "best.toml")


_ODD_TOML = (
    *("nan", "inf", "-inf", "true", '"3"', "[3]", "{a = 3}", "2020-01-01", "07:30:00"),
    *("1__0", "010", "1.", ".5", "1e999", "null", "", "3 # 4\n4", "½"),
)


def other_formats(seed: int, folder: Path) -> str:
    """Write right settings as YAML or TOML, for a run that has them."""
    chance = random.Random(f"other formats {seed}")
    line = right_line(chance)
    run = line.kind(**{**line.given, "data": str(folder / NOWHERE)})
    make_folder(folder / "run", line.kind.command, run.to_dict())
    endings, text = chance.choice(
        (
            (("yaml", "yml", "YAML"), _as_yaml(chance, line)),
            (("toml", "Toml"), _as_toml(chance, line)),
            (("yaml",), json.dumps(_content(line, folder), indent=2)),
        )
    )
    path = folder / f"best.{chance.choice(endings)}"
    path.write_text(text)
    words = [line.kind.command, "--resume", *line.ending(folder)]
    check_refused(ended([*words, "--config", str(path)]), NOWHERE)
    return HARMLESS


def _as_yaml(chance: random.Random, line: Line) -> str:
    """Return settings as YAML, in one of the forms that are right."""
    lines = ["# settings"]
    for name, value in line.given.items():
        if isinstance(value, tuple):
            items = "".join(f"\n- {each}" for each in value)
            text = chance.choice((f"[{', '.join(value)}]", ", ".join(value), items))
        elif isinstance(value, bool):
            text = chance.choice((str(value), str(value).lower()))
        elif isinstance(value, float):
            text = chance.choice((str(value), f"{value:e}", f"+{value}"))
        else:
            text = str(value)
        lines.append(f"{_spelt(chance, name)}: {text}{chance.choice(('', '  # why'))}")
    return "\n".join(chance.sample(lines, len(lines))) + "\n"


def _as_toml(chance: random.Random, line: Line) -> str:
    """Return settings as TOML, in one of the forms that are right."""
    lines = ["# settings"]
    for name, value in line.given.items():
        if isinstance(value, tuple):
            text = chance.choice((json.dumps(value), json.dumps(",".join(value))))
        elif isinstance(value, float):
            text = chance.choice((str(value), f"{value:e}", f"+{value}"))
        else:
            text = json.dumps(value)
        lines.append(f"{_spelt(chance, name)} = {text}{chance.choice(('', ' # why'))}")
    return "\n".join(chance.sample(lines, len(lines))) + "\n"


def _spelt(chance: random.Random, name: str) -> str:
    return chance.choice((name, name.replace("_", "-")))


def _content(line: Line, folder: Path) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in line.given.items()
    }


def _may_be(kind: type, odd: Any) -> bool:
    """Return whether an odd value may be right for a setting of a type."""
    if kind is str:
        return odd in ("1", "nan")
    if kind is bool:
        return isinstance(odd, bool)
    return kind is float and odd == 0.5


def _refused(line: Line, text: str, folder: Path, name: str, file: str = _FILE) -> str:
    path = folder / file
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    words = [line.kind.command, "--config", str(path), *line.ending(folder)]
    result = ended(words)
    _check_alone(folder, file)
    if NOWHERE in result.err.replace(str(path), ""):
        raise Fault(f"{text[:200]!r} was read")
    return check_refused(result, file, name)


def _check_alone(folder: Path, file: str = _FILE) -> None:
    if os.listdir(folder) != [file]:
        raise Fault(f"expected nothing to be written, got {os.listdir(folder)}")


KINDS: Family = {
    "a setting of another type or out of range": odd_value,
    "a setting that there is not": odd_name,
    "a text that is no JSON, or says things twice": odd_text,
    "damaged bytes in a settings file": damaged,
    "a settings file that is no file": no_file,
    "right settings in an unusual form": unusual,
    "a text that is no YAML, or more than settings need": odd_yaml,
    "a text that is no TOML, or more than settings need": odd_toml,
    "right settings as YAML or TOML": other_formats,
}
