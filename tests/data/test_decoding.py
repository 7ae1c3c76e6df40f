import io
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from damage import open_files, said_nothing
from odd_images import bombs, picture, png, rows, tiff
from PIL import Image

from l2l_evograd.checks import InputError
from l2l_evograd.data.decoding import decode, images_of, read_image


def pixels(content: bytes, mode: str = "RGB") -> np.ndarray:
    return np.asarray(decode(io.BytesIO(content), "the image", mode))


# 0, half of white, white, and values beside the middle between two bytes.
SIXTEEN = np.array([[0, 32768, 65535], [128, 129, 257]])
EIGHT = [[0, 128, 255], [0, 1, 1]]


@pytest.mark.parametrize(
    "content",
    [
        png(3, 2, 16, 0, rows(SIXTEEN.astype(">u2"))),
        tiff(SIXTEEN.astype("<u2"), "<", 16, 1),
        tiff(SIXTEEN.astype(">u2"), ">", 16, 1),
        tiff((65535 - SIXTEEN).astype("<u2"), "<", 16, 0),
        b"P5 3 2 65535\n" + SIXTEEN.astype(">u2").tobytes(),
        b"P2 3 2 65535\n" + " ".join(map(str, SIXTEEN.flat)).encode(),
    ],
)
def test_sixteen_bits_become_eight(content):
    assert (pixels(content, "L") == EIGHT).all()
    assert (pixels(content) == np.array(EIGHT)[..., None]).all()


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("mode", "pixel", "form", "right"),
    [
        ("1", 1, "PNG", (255, 255, 255)),
        ("L", 77, "PNG", (77, 77, 77)),
        ("LA", (77, 0), "PNG", (77, 77, 77)),
        ("P", 3, "GIF", (9, 10, 11)),
        ("RGBA", (1, 2, 3, 0), "PNG", (1, 2, 3)),
        ("CMYK", (255, 0, 0, 0), "TIFF", (0, 255, 255)),
        ("YCbCr", (76, 85, 255), "TIFF", (254, 0, 0)),
    ],
)
def test_other_modes_have_their_colours(mode, pixel, form, right):
    image = Image.new(mode, (4, 3))
    if mode == "P":
        image.putpalette(range(12))
    image.paste(pixel, (0, 0, 4, 3))
    content = saved(image, form)
    try:
        Image.open(io.BytesIO(content)).load()
    except OSError as error:  # YCbCr in TIFF, before Pillow 13
        pytest.skip(f"this release of Pillow cannot read what it wrote: {error}")
    assert (pixels(content) == right).all()


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_pixels_that_do_not_say_what_is_white_are_refused(mode):
    with pytest.raises(InputError, match=f"kind '{mode}'.* 8 or 16 bits"):
        pixels(saved(Image.new(mode, (4, 3)), "TIFF"))


@pytest.mark.parametrize("name", list(bombs()))
def test_small_files_do_not_take_much_memory(name):
    content = bombs()[name]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="the image cannot be opened"):
        pixels(content)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_a_large_file_is_not_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(1, 1, 8, 0))
    os.truncate(path, 2**40)
    with pytest.raises(InputError, match=r"a\.png cannot .* at most 256 MiB, got 104"):
        read_image(path)


def test_flipped_bits_of_png_are_noticed_where_the_image_is_still_an_image():
    whole = bytearray(saved(picture_of_areas(), "PNG"))
    right, changed = pixels(bytes(whole)), 0
    for place in range(whole.index(b"IDAT") + 4, len(whole) - 12):
        whole[place] ^= 4
        try:
            assert (pixels(bytes(whole)) == right).all()
        except InputError:
            changed += 1
        whole[place] ^= 4
    assert changed == len(whole) - 12 - whole.index(b"IDAT") - 4


def picture_of_areas() -> Image.Image:
    return Image.fromarray(np.arange(48, dtype=np.uint8).repeat(12).reshape(24, 24))


def test_errors_of_libtiff_are_not_printed_but_refused():
    image = picture_of_areas().convert("1")
    content = bytearray(saved(image, "TIFF", compression="group4"))
    with Image.open(io.BytesIO(content)) as opened:
        place = opened.tag_v2[273][0]  # where the pixels are
    content[place + 1 : place + 5] = b"\xff\0\xff\0"
    with said_nothing(), pytest.raises(InputError, match="Fax4Decode"):
        pixels(bytes(content))


def test_images_that_need_more_memory_than_there_is_are_refused():
    with pytest.raises(InputError, match="not enough memory for 9 images of 2147"):
        images_of(9, 3, 2**31 - 1)
    assert images_of(2, 3, 4).shape == (2, 3, 4, 4)


def test_reading_holds_memory_and_open_files_flat(tmp_path):
    import random

    good, bad = tmp_path / "good.tif", tmp_path / "bad.tif"
    picture(random.Random(0), "RGB", 256).save(good, compression="tiff_lzw")
    bad.write_bytes(good.read_bytes()[:60_000])

    def read(times: int) -> None:
        for _ in range(times):
            read_image(good)
            with pytest.raises(InputError):
                read_image(bad)

    read(20)
    files, memory = open_files(), held()
    read(200)  # the images of 200 rounds take 80 MB
    assert open_files() == files
    assert held() - memory < 8


def held() -> float:
    """Return the memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6
