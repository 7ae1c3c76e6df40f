"""Archives and files of other formats that are damaged or mean harm."""

import functools
import gzip
import io
import random
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from damage import WAYS, outcome, special_file
from faulty import HARMLESS, REFUSED, SAME, Family, Fault, check_refused, ended
from idx import write_digits
from odd_matlab import odd_matlab
from odd_tars import odd_tar
from small_archives import cub_files, prepared, small, tree, write_tar, write_zip
from small_omniglot import drawing, write_archives

from l2l_evograd.checks import InputError
from l2l_evograd.data.digits import read_pair
from l2l_evograd.experiments.crossdomain.data.archives import Counts
from l2l_evograd.experiments.crossdomain.data.archives.matlab import read_matlab
from l2l_evograd.experiments.fewshot.omniglot import read_omniglot

_FILES = cub_files(4, 1)
_LAYOUT = small("cub", counts=Counts(4, 4))
_KINDS = ("a.tar", "a.tgz", "a.tar.bz2", "a.tar.xz", "a.zip")


def damaged(way: Callable[..., bytes], seed: int, folder: Path) -> str:
    """Prepare a data set from an archive that is damaged in one of WAYS."""
    chance = random.Random(f"archive {way.__name__} {seed}")
    path = folder / chance.choice(_KINDS)
    (write_zip if path.suffix == ".zip" else write_tar)(path, _FILES)
    path.write_bytes(way(chance, path.read_bytes()))
    # A tar that is not compressed has no checksums of its files.
    return _prepared(path, folder / "root", checked=path.suffix != ".tar")


def odd_header(seed: int, folder: Path) -> str:
    """Prepare a data set from a tar archive with a header that lies."""
    chance = random.Random(seed)
    what, content = odd_tar(chance, _FILES)
    packed = chance.choice((False, True))
    path = folder / "a.tar"
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    try:
        return _prepared(path, folder / "root", checked=False)
    except Fault as fault:
        raise Fault(f"{what}: {fault}") from fault


def odd_zip(seed: int, folder: Path) -> str:
    """Prepare a data set from a zip archive that lies about a member."""
    chance = random.Random(seed)
    path = write_zip(folder / "a.zip", _FILES)
    content = bytearray(path.read_bytes())
    places = [found.start() for found in re.finditer(b"PK\x01\x02", content)]
    # Flags, method, sizes, length of the name and of more, attributes, place.
    at, width = chance.choice(
        ((8, 2), (10, 2), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (40, 2), (42, 4))
    )
    number = chance.choice((0, 1, 9, 12, 14, 99, 0xA1FF, 0xFFFF, 2**31, 2**32 - 1))
    place = chance.choice(places)
    if chance.random() < 0.2:
        # In the record at the end: numbers of entries, size, place.
        place = content.rindex(b"PK\x05\x06")
        at, width = chance.choice(((8, 2), (10, 2), (12, 4), (16, 4), (20, 2)))
    content[place + at : place + at + width] = struct.pack("<I", number)[:width]
    path.write_bytes(content)
    return _prepared(path, folder / "root", checked=True)


@functools.cache
def _zeros() -> bytes:
    return gzip.compress(bytes(2**24), 1)


def nested(seed: int, folder: Path) -> str:
    """Prepare a data set from what is packed twice, inflates, or never ends."""
    chance = random.Random(seed)
    path = write_tar(folder / "b.tar", _FILES)
    content = path.read_bytes()
    zeros = _zeros()
    bad, content = chance.choice(
        (
            (True, gzip.compress(gzip.compress(content))),
            (True, gzip.compress(content) + 8 * zeros),
            (True, 8 * zeros),
            (True, gzip.compress(content) + b"more"),
            (False, gzip.compress(content) + gzip.compress(bytes(10240))),
            (False, gzip.compress(content[:1000]) + gzip.compress(content[1000:])),
        )
    )
    (folder / "a.tar").write_bytes(content)
    said = _prepared(folder / "a.tar", folder / "root", checked=True)
    if bad and said != REFUSED:
        raise Fault(f"expected a refusal of {content[:20]!r}, got {said}")
    return said


def special(seed: int, folder: Path) -> str:
    """Run a command on what is no archive, or not one that can be read."""
    chance = random.Random(seed)
    place, options = folder / "a.tar", ["cub", "--archive"]
    command = "prepare"
    if chance.random() < 0.3:
        command, options = chance.choice(
            (
                ("rotation", ["--data"]),
                ("schedules", ["--data"]),
                ("fewshot", ["--omniglot"]),
            )
        )
        place = folder / "data"
    what = special_file(chance, place)
    given = str(place)
    if chance.random() < 0.4 and command == "prepare":
        given = chance.choice(
            ("", "~nobody-here/a.tar", "a\0b", "x" * 5000, "/dev/zero")
        )
    elif what == "folder" and command != "prepare":
        special_file(chance, place / "t10k-images-idx3-ubyte")
        special_file(chance, place / "images_background_small1.zip")
        special_file(chance, place / "images_background_small2.zip")
    arguments = [command, *options, given, "--out", str(folder / "out")]
    try:
        return check_refused(ended(arguments))
    except Fault as fault:
        raise Fault(f"{command} {given[:80]!r}, {what}: {fault}") from fault


def damaged_idx(seed: int, folder: Path) -> str:
    """Read MNIST's files of which one is damaged, or has a header that lies."""
    chance = random.Random(seed)
    suffix = chance.choice(("", ".gz"))
    write_digits(folder, "t10k", 60, suffix=suffix)
    path = (
        folder
        / f"{chance.choice(('t10k-images-idx3', 't10k-labels-idx1'))}-ubyte{suffix}"
    )
    content = path.read_bytes()
    right = read_pair(folder, "t10k")
    plain = gzip.decompress(content) if suffix else content
    if chance.random() < 0.4:
        header = 16 if "images" in path.name else 8
        axis = chance.randrange(4, header, 4)
        size = chance.choice((0, 1, 59, 61, 2**16, 2**31, 2**32 - 1))
        plain = plain[:axis] + struct.pack(">I", size) + plain[axis + 4 :]
        if chance.random() < 0.3:
            plain = plain[:4] + b"\xff" * (header - 4) + plain[header:]
        content = gzip.compress(plain) if suffix else plain
    else:
        content = chance.choice(list(WAYS.values()))(chance, content)
    path.write_bytes(content)
    found = []
    said = outcome(lambda: found.extend(read_pair(folder, "t10k")), folder)
    if said == REFUSED:
        return said
    same = all(bool((a == b).all()) for a, b in zip(found, right, strict=True))
    if not same and suffix:
        raise Fault(f"other digits from {path}, in spite of its checksum")
    return SAME if same else HARMLESS


def damaged_matlab(seed: int, folder: Path) -> str:
    """Read a MATLAB file that is damaged, deep, or inflates."""
    chance = random.Random(seed)
    what, content = odd_matlab(chance)

    def read() -> None:
        try:
            read_matlab(content)
        except (ValueError, struct.error, OverflowError) as error:
            raise InputError(f"{what}: {error}") from error

    return outcome(read, folder / what)


def damaged_omniglot(seed: int, folder: Path) -> str:
    """Read Omniglot's archives of which one is damaged or odd."""
    chance = random.Random(seed)
    write_archives(folder, 1)
    right = read_omniglot(folder, 28)
    path = folder / f"images_background_small{chance.choice((1, 2))}.zip"
    name = f"{path.stem}/Korean/character01/0001_99.png"
    what = chance.choice(("damage", "damage", "bomb", "twice", "image", "method"))
    bad = what in ("bomb", "twice", "image", "method")
    if what == "damage":
        path.write_bytes(chance.choice(list(WAYS.values()))(chance, path.read_bytes()))
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED)
        if bad
        else io.BytesIO() as file
    ):
        if what == "bomb":
            file.writestr(name, bytes(2**20 + 1))
        elif what == "twice":
            file.writestr(name, drawing(1, 1))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                file.writestr(name, drawing(2, 1))
        elif what == "image":
            file.writestr(name, chance.choice((b"", b"no image", drawing(1, 1)[:50])))
        elif what == "method":
            file.writestr(name, drawing(1, 1), zipfile.ZIP_BZIP2)
    found = []
    said = outcome(lambda: found.append(read_omniglot(folder, 28)), path)
    if said == REFUSED:
        return said
    same = all(
        bool((one.images == two.images).all()) and one.labels == two.labels
        for one, two in zip(found[0][1:], right[1:], strict=True)
        if len(one) == len(two)
    )
    if bad or not same:
        raise Fault(f"{what}: other images from {path}")
    return SAME


def _prepared(path: Path, root: Path, checked: bool) -> str:
    """Prepare a data set, and compare it with that of the undamaged archive.

    Args:
        path: the archive.
        root: folder for the data set.
        checked: whether the archive has checksums, so that no difference may pass.
    """
    said = outcome(lambda: prepared(_LAYOUT, root, path), path)
    found = tree(root) if root.exists() else {}
    odd = [name for name in found if "unfinished" in name or ".lock" in name]
    lists = [name for name in found if name.endswith(".json")]
    if odd or len(lists) != (0 if said == REFUSED else 3):
        raise Fault(f"after {said}: {odd or lists}")
    if [
        entry.name for entry in root.parent.iterdir() if entry not in (path, root)
    ] not in (
        [],
        ["b.tar"],
    ):
        raise Fault(f"files beside {root}: {list(root.parent.iterdir())}")
    if said == REFUSED:
        return said
    whole = prepared(_LAYOUT, root / "whole", write_tar(root / "whole.tgz", _FILES))
    if found == tree(whole.folder.parent):
        return SAME
    if checked:
        raise Fault("other images, in spite of the checksums")
    return HARMLESS


KINDS: Family = {
    **{f"archive with {name}": partial(damaged, way) for name, way in WAYS.items()},
    "tar archive with a header that lies": odd_header,
    "zip archive with a record that lies": odd_zip,
    "archive that is packed twice or inflates": nested,
    "pipe, device or link in place of an archive": special,
    "MNIST's files, damaged or lying": damaged_idx,
    "MATLAB file, damaged, deep or inflating": damaged_matlab,
    "Omniglot's archives, damaged or inflating": damaged_omniglot,
}
