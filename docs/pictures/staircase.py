"""Draw the folders of the package and their imports, read from the code.

    python docs/pictures/staircase.py

writes ``staircase.svg`` beside this file. A folder stands one floor above the highest
of what it imports. An arrow that a longer way of arrows implies is left out.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PACKAGE = "l2l_evograd"
PICTURE = Path(__file__).with_suffix(".svg")

Imports = dict[tuple[str, str], set[str]]

# Middle and width of each box. Its row is its floor.
_PLACES = {
    **{"cli": (250, 480), "experiments": (250, 480), "lightning": (54, 84)},
    **{"unroll": (188, 108), "oracle": (310, 108), "algorithms": (66, 108)},
    **{"bilevel": (249, 108), "updates": (158, 108), "estimators": (158, 108)},
    **{"replay": (158, 108), "search": (400, 84), "data": (432, 108)},
}
# Where an arrow starts and ends that would run through a box otherwise.
_ASIDE = {("experiments", "algorithms"): 109, ("experiments", "data"): 455}
_WIDTH, _ROW, _BOX, _TOP = 500, 74, 40, 16


def names() -> list[str]:
    """Return the folders and single files of the package, without its face."""
    found = [
        path.stem
        for path in (ROOT / PACKAGE).iterdir()
        if (path / "__init__.py").exists() or path.suffix == ".py"
    ]
    return sorted(name for name in found if name != "__init__")


def is_folder(name: str) -> bool:
    """Say whether a name is a folder of the package."""
    return (ROOT / PACKAGE / name).is_dir()


def imports() -> Imports:
    """Return who imports whom, and the files that do."""
    known, face = set(names()), _face()
    found: Imports = {}
    for file in sorted((ROOT / PACKAGE).rglob("*.py")):
        place = file.relative_to(ROOT / PACKAGE)
        source = place.parts[0].removesuffix(".py")
        if source == "__init__":
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for target in _targets(tree, text=source == "cli"):
            name = face.get(target, target)
            if name in known and name != source:
                found.setdefault((source, name), set()).add(place.as_posix())
    return found


def _targets(tree: ast.AST, text: bool) -> Iterator[str]:
    """Yield the second parts of the paths that a file imports.

    Args:
        tree: the file.
        text: whether it imports paths that it holds as text, as the command line does.
    """
    for node in ast.walk(tree):
        paths: list[str] = []
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            paths = [node.module]
            if node.module == PACKAGE:
                paths = [f"{PACKAGE}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names]
        elif text and isinstance(node, ast.Constant) and isinstance(node.value, str):
            paths = [node.value]
        for path in paths:
            first, _, rest = path.partition(".")
            if first == PACKAGE and rest:
                yield rest.partition(".")[0]


def _face() -> dict[str, str]:
    """Return where the names come from that the package hands on."""
    tree = ast.parse((ROOT / PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    return {
        alias.name: node.module.split(".")[1]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and "." in node.module
        for alias in node.names
    }


def floors() -> dict[str, int]:
    """Return the floor of each folder and single file; the ground floor is 1.

    Raises:
        RecursionError: if there is a circle of imports.
    """
    below: dict[str, set[str]] = {name: set() for name in names()}
    for source, target in imports():
        below[source].add(target)

    def floor(name: str) -> int:
        return 1 + max(map(floor, below[name]), default=0)

    return {name: floor(name) for name in below}


def arrows() -> list[tuple[str, str]]:
    """Return the imports between folders that no longer way of imports implies."""
    drawn = {
        pair for pair in imports() if all(is_folder(n) or n == "cli" for n in pair)
    }

    def ways(source: str) -> set[str]:
        """Return what lies two or more arrows below."""
        near = {target for start, target in drawn if start == source}
        return {t for n in near for s, t in drawn if s == n} | {
            far for n in near for far in ways(n)
        }

    return sorted(pair for pair in drawn if pair[1] not in ways(pair[0]))


def picture() -> str:
    """Return the picture as SVG."""
    at = floors()
    top = max(at.values())

    def middle(name: str) -> tuple[int, int]:
        return _PLACES[name][0], _TOP + _BOX // 2 + _ROW * (top - at[name])

    lines = []
    for source, target in arrows():
        (x1, y1), (x2, y2) = middle(source), middle(target)
        if _PLACES[source][1] > 108:
            x1 = x2 = _ASIDE.get((source, target), x2)
        lines.append(_arrow(x1, y1 + _BOX / 2, x2, y2 - _BOX / 2))
    x, y = middle("replay")
    ground = y + _ROW
    lines.append(_arrow(x, y + _BOX / 2, x, ground - _BOX / 2))
    for name in at:
        if is_folder(name) or name == "cli":
            text = "cli.py" if name == "cli" else f"{name}/"
            lines += _box(*middle(name), _PLACES[name][1], text, "#dfe5f7")
    lines += _box(_WIDTH / 2, ground, _WIDTH - 20, "torch", "#eee")
    y = ground + _BOX / 2 + 30
    for floor in range(1, top):
        files = [n for n, f in at.items() if f == floor and not is_folder(n)]
        head = f"single files, floor {floor}:"
        for number, part in enumerate(_wrapped(files)):
            lines.append(_text(10, y, "" if number else head, "#555"))
            lines.append(_text(160, y, part, "#000"))
            y += 22
    height = round(y)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
            f' width="{_WIDTH}" font-family="sans-serif" font-size="15">',
            '<rect width="100%" height="100%" fill="white"/>',
            *lines,
            "</svg>\n",
        ]
    )


def _wrapped(words: list[str]) -> list[str]:
    rows: list[str] = []
    for word in words:
        if rows and len(rows[-1]) + len(word) < 46:
            rows[-1] += f", {word}"
        else:
            rows.append(word)
    return rows


def _box(x: float, y: float, width: float, text: str, fill: str) -> list[str]:
    left, upper = x - width / 2, y - _BOX / 2
    return [
        f'<rect x="{left:g}" y="{upper:g}" width="{width:g}" height="{_BOX}" rx="5"'
        f' fill="{fill}" stroke="#333"/>',
        f'<text x="{x:g}" y="{y + 5:g}" text-anchor="middle">{text}</text>',
    ]


def _text(x: float, y: float, text: str, fill: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="13.5" fill="{fill}">{text}</text>'


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    """Return a line with a head at its end."""
    length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
    dx, dy = (x2 - x1) / length, (y2 - y1) / length
    bx, by = x2 - 9 * dx, y2 - 9 * dy
    head = (
        f"{x2:.1f},{y2:.1f} {bx - 4 * dy:.1f},{by + 4 * dx:.1f} "
        f"{bx + 4 * dy:.1f},{by - 4 * dx:.1f}"
    )
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{bx:.1f}" y2="{by:.1f}"'
        f' stroke="#333" stroke-width="1.5"/><polygon points="{head}" fill="#333"/>'
    )


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
