"""Images that are damaged, odd, or no images at all."""

import io
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from damage import WAYS, outcome, special_file
from faulty import HARMLESS, REFUSED, Family, Fault, check_refused, ended
from odd_images import bombs, picture, png, rows, tiff, written
from photographs import make_domain
from PIL import Image

from l2l_evograd.data.decoding import read_image

# Formats that are not read: Pillow's readers of them are hardly tried.
_OTHERS = ("IM", "SGI", "PCX", "TGA", "ICO", "DDS", "MSP", "XBM")


def damaged(way: Callable[..., bytes], seed: int, folder: Path) -> str:
    """Read an image that is damaged in one or two of WAYS."""
    chance = random.Random(f"image {way.__name__} {seed}")
    ending, content = written(chance)
    content = way(chance, content)
    if chance.random() < 0.2 and content:
        content = chance.choice(list(WAYS.values()))(chance, content)
    path = folder / f"a.{ending}"
    path.write_bytes(content)
    return outcome(lambda: _whole(path), path)


def spliced(seed: int, folder: Path) -> str:
    """Read an image that begins as one and goes on as another."""
    chance = random.Random(seed)
    (ending, one), (_, two) = written(chance), written(chance)
    path = folder / f"a.{ending}"
    path.write_bytes(one[: chance.randrange(60)] + two[chance.randrange(60) :])
    return outcome(lambda: _whole(path), path)


def bomb(seed: int, folder: Path) -> str:
    """Read a small file that would take much memory."""
    name, make = random.Random(seed).choice(list(bombs().items()))
    path = folder / f"{name}.png"
    path.write_bytes(make())
    if outcome(lambda: _whole(path), path) != REFUSED:
        raise Fault(f"the bomb {name} was read")
    return REFUSED


def other_format(seed: int, folder: Path) -> str:
    """Read an image in a format that is not for data sets, or what is no image."""
    chance = random.Random(seed)
    form = chance.choice((*_OTHERS, None))
    path = folder / "a.png"
    if form is None:
        path.write_bytes(chance.choice((b"", b"\0" * 99, b"{}", chance.randbytes(999))))
    else:
        picture(chance, "1" if form in ("MSP", "XBM") else "L").save(path, form)
    if outcome(lambda: _whole(path), path) != REFUSED:
        raise Fault(f"an image in the format {form} was read")
    return REFUSED


def deep_grey(seed: int, folder: Path) -> str:
    """Read grey pixels of more than eight bits; the right values are known."""
    chance = random.Random(seed)
    bits = chance.choice((10, 12, 16, 16))
    most = 2**bits - 1
    numbers = np.random.default_rng(seed).integers(0, most + 1, (6, 8))
    numbers[0, :2] = 0, most
    right = np.rint(255 * numbers / most)
    order = chance.choice("<>")
    if bits == 10:
        content = f"P5 8 6 {most}\n".encode() + numbers.astype(">u2").tobytes()
    elif bits == 12:  # two pixels in three bytes
        one, two = numbers[:, ::2], numbers[:, 1::2]
        three = (one >> 4, (one & 15) << 4 | two >> 8, two & 255)
        content = tiff(np.stack(three, -1).reshape(6, 12).astype("u1"), "<", 12, 1)
    elif chance.random() < 0.3:
        content = png(8, 6, 16, 0, rows(numbers.astype(">u2")))
    else:
        meaning = chance.choice((0, 1)) if order == "<" else 1
        stored = numbers if meaning else most - numbers
        content = tiff(stored.astype(f"{order}u2"), order, 16, meaning)
    path = folder / "a.tif"
    path.write_bytes(content)
    said = outcome(lambda: _whole(path), path)
    if said == HARMLESS:
        found = np.asarray(read_image(path))
        if not (found == right[..., None]).all():
            raise Fault(f"{bits} bits, {content[:4]!r}: {found[..., 0]}, not {right}")
    return said


def unknown_pixels(seed: int, folder: Path) -> str:
    """Read pixels that do not say what is white: they are not to be guessed."""
    chance = random.Random(seed)
    kind, bits = chance.choice(((2, 16), (2, 32), (1, 32), (3, 32)))
    code = {1: "u", 2: "i", 3: "f"}[kind]
    values = np.arange(48).reshape(6, 8).astype(f"<{code}{bits // 8}")
    path = folder / "a.tif"
    path.write_bytes(tiff(values, "<", bits, 1, kind))
    if chance.random() < 0.2:
        Image.new("LAB", (8, 6), (50, 60, 70)).save(path)
    if outcome(lambda: _whole(path), path) != REFUSED:
        raise Fault(f"pixels of kind {kind} with {bits} bits were read")
    return REFUSED


def special(seed: int, folder: Path) -> str:
    """Run a command on a folder where an image is no file or is damaged."""
    chance = random.Random(seed)
    command = chance.choice(("noisy-labels", "schedules", "fewshot", "crossdomain"))
    if command in ("noisy-labels", "schedules"):
        data = folder / "data"
        for part in ("train", "test"):
            for name in ("cat", "dog"):
                (data / part / name).mkdir(parents=True)
                picture(chance, "RGB").save(data / part / name / "1.png")
        place = data / chance.choice(("train", "test")) / "dog" / "1.png"
    else:
        data = make_domain(folder / "data", "birds")
        make_domain(folder / "data", "cars")
        place = data / "images" / "0-0.png"
        if command == "crossdomain":
            data = data.parent
    what = "damaged"
    if chance.random() < 0.7:
        what = special_file(chance, place)
    else:
        place.write_bytes(place.read_bytes()[:60])
    arguments = [command, "--data", data, "--out", folder / "out"]
    result = ended(arguments)
    try:
        return check_refused(result, place.name if what != "folder" else "")
    except Fault as fault:
        raise Fault(f"{command}, {what}: {fault}") from fault


def _whole(path: Path) -> None:
    """Read an image, and look at every pixel."""
    found = read_image(path)
    if found.mode != "RGB" or len(found.tobytes()) != 3 * found.width * found.height:
        raise Fault(f"{path}: {found}")
    found.save(io.BytesIO(), "PPM")


KINDS: Family = {
    **{f"image with {name}": partial(damaged, way) for name, way in WAYS.items()},
    "image spliced from two": spliced,
    "image that would take much memory": bomb,
    "image in another format": other_format,
    "image with grey pixels of 10 to 16 bits": deep_grey,
    "image whose pixels do not say what is white": unknown_pixels,
    "pipe, device, link or damage in place of an image": special,
}
