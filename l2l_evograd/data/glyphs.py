"""Built-in images: glyphs of the fonts that matplotlib ships, drawn in five ways.

Classes are glyphs; domains are ways of drawing them: dark on light print, outlines,
a texture on another texture, light on a coloured gradient, and pencil sketches. Every
image has its own font face, size, slant, position and angle. The images are drawn from
a seed when they are needed; nothing is downloaded.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from l2l_evograd.checks import InputError

# Glyphs that can be told apart in all faces and after any small rotation. If glyphs
# look alike in two scripts or in two cases, the list has only one of them.
CLASSES: dict[str, list[str]] = {
    "base": list("ABEFGHJKLMNPRSTUXYZ23478abdeghkmty&?#@ΔΘΞΣΨ"),
    "val": list("CDQ569nrfΦΩ"),
    "novel": list("VWI£$%§€ЖЯЮЩДЫЭЦβζωλξ¶"),
}

STYLES = ("print", "outline", "texture", "inverse", "sketch")

_FACES = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSerif-Italic.ttf",
)

# Glyphs are drawn at this multiple of the size and reduced, for smooth edges.
_OVERSAMPLING = 2

# The largest width, as a fraction of the image's side. Wider glyphs are drawn smaller,
# so that they fit into the image when they are turned.
_WIDEST = 0.72

Mask = NDArray[np.float32]
Picture = NDArray[np.float32]


class GlyphSplit:
    """The images of one domain and split, drawn when the first one is read.

    Args:
        style: a name in :data:`STYLES`.
        split: a key of :data:`CLASSES`.
        image_size: side of an image in pixels, at least 16.
        seed: seed from which the images are drawn.
        images_per_class: number of images of each class.

    Attributes:
        copies: the numbers of the images of one class.

    Raises:
        InputError: for a size below 16, or less than one image of each class.
    """

    def __init__(
        self, style: str, split: str, image_size: int, seed: int, images_per_class: int
    ) -> None:
        if image_size < 16:
            raise InputError(
                f"glyphs are not readable below 16 pixels: expected an image size of "
                f"at least 16, got {image_size}"
            )
        if images_per_class < 1:
            raise InputError(
                f"expected at least one image of each class, got {images_per_class}"
            )
        self.copies = range(images_per_class)
        self._style, self._split = style, split
        self._size, self._seed = image_size, seed
        self._images: Tensor | None = None

    def image(self, index: int) -> Tensor:
        """Return an image, shape (3, image_size, image_size), dtype uint8."""
        if self._images is None:
            self._images = self._drawn()
        return self._images[index]

    def _drawn(self) -> Tensor:
        key = [self._seed, STYLES.index(self._style), list(CLASSES).index(self._split)]
        random = np.random.default_rng(key)
        draw = _DRAWINGS[self._style]
        pictures = []
        for glyph in CLASSES[self._split]:
            for _ in self.copies:
                mask = glyph_mask(glyph, self._size, random, self._style)
                picture = np.clip(draw(mask, random), 0, 1)
                pictures.append((255 * picture).astype(np.uint8))
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


@functools.lru_cache(maxsize=128)
def _font(face: str, size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / face), size)


def glyph_mask(glyph: str, size: int, random: np.random.Generator, style: str) -> Mask:
    """Return how much of each pixel a glyph covers, 0 to 1, shape (size, size).

    In the style "outline", the mask covers only the contour of the glyph.
    """
    side = size * _OVERSAMPLING
    bold = {"outline": (True,), "sketch": (False,)}.get(style, (True, False))
    faces = [face for face in _FACES if ("Bold" in face) in bold]
    face = faces[random.integers(len(faces))]
    # Only four sizes are drawn, so that few fonts are loaded.
    share = 0.62 + 0.06 * random.integers(4)
    left, top, right, bottom = _font(face, int(side * share)).getbbox(glyph)
    if right - left > _WIDEST * side:
        share *= _WIDEST * side / (right - left)
    font = _font(face, int(side * share))
    left, top, right, bottom = font.getbbox(glyph)
    canvas = Image.new("L", (side, side))
    room = 0.08 * side
    x = (side - (right - left)) / 2 - left + random.uniform(-room, room)
    y = (side - (bottom - top)) / 2 - top + random.uniform(-room, room)
    pen = ImageDraw.Draw(canvas)
    if style == "outline":
        pen.text((x, y), glyph, fill=255, font=font, stroke_width=_OVERSAMPLING)
    pen.text((x, y), glyph, fill=0 if style == "outline" else 255, font=font)
    turned = canvas.rotate(random.uniform(-14, 14), resample=Image.Resampling.BILINEAR)
    reduced = turned.resize((size, size), Image.Resampling.BOX)
    return np.asarray(reduced, dtype=np.float32) / np.float32(255)


def _mixed(mask: Mask, ink: Picture, paper: Picture) -> Picture:
    return mask[..., None] * ink + (1 - mask[..., None]) * paper


def _print(mask: Mask, random: np.random.Generator) -> Picture:
    """Draw in dark ink on light paper."""
    ink = np.full(3, random.uniform(0.0, 0.25), dtype=np.float32)
    paper = np.full(3, random.uniform(0.85, 1.0), dtype=np.float32)
    return _mixed(mask, ink, paper)


def _outline(mask: Mask, random: np.random.Generator) -> Picture:
    """Draw only the contour, in a dark colour on a pastel one."""
    ink = random.uniform(0.0, 0.4, 3).astype(np.float32)
    paper = random.uniform(0.75, 1.0, 3).astype(np.float32)
    return _mixed(mask, ink, paper)


def _texture(mask: Mask, random: np.random.Generator) -> Picture:
    """Draw stripes or checks in two colours, on stripes or checks in two others."""
    size = len(mask)
    ink = _pattern(size, random, random.uniform(0.0, 0.45, (2, 3)))
    paper = _pattern(size, random, random.uniform(0.55, 1.0, (2, 3)))
    return _mixed(mask, ink, paper)


def _pattern(
    size: int, random: np.random.Generator, colours: NDArray[np.float64]
) -> Picture:
    angle = random.uniform(0, np.pi)
    period = random.uniform(3, 8)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    along = rows * np.sin(angle) + columns * np.cos(angle)
    wave = np.sin(2 * np.pi * along / period)
    if random.random() < 0.5:
        across = rows * np.cos(angle) - columns * np.sin(angle)
        wave = wave * np.sin(2 * np.pi * across / period)
    share = ((wave + 1) / 2)[..., None]
    mixed: Picture = (share * colours[0] + (1 - share) * colours[1]).astype(np.float32)
    return mixed


def _inverse(mask: Mask, random: np.random.Generator) -> Picture:
    """Draw a light glyph on a dark coloured gradient."""
    size = len(mask)
    angle = random.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
    share = (rows * np.sin(angle) + columns * np.cos(angle) + 0.7) / 1.4
    start, end = random.uniform(0.0, 0.5, (2, 3))
    paper = share[..., None] * start + (1 - share[..., None]) * end
    ink = random.uniform(0.75, 1.0, 3).astype(np.float32)
    return _mixed(mask, ink, paper.astype(np.float32))


def _sketch(mask: Mask, random: np.random.Generator) -> Picture:
    """Draw in pencil: broken, shaky, hatched strokes on grainy paper."""
    size = len(mask)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    phase = random.uniform(0, 2 * np.pi, 2)
    shake = random.uniform(0.4, 1.0)
    moved_rows = rows + shake * np.sin(columns / 2.5 + phase[0])
    moved_columns = columns + shake * np.sin(rows / 2.5 + phase[1])
    limit = size - 1
    near_rows = np.clip(np.rint(moved_rows), 0, limit).astype(int)
    near_columns = np.clip(np.rint(moved_columns), 0, limit).astype(int)
    shaken = mask[near_rows, near_columns]
    hatch = ((rows + columns + random.integers(3)) % 3 < 2).astype(np.float32)
    pencil = shaken * hatch * random.uniform(0.7, 1.0, (size, size))
    paper = random.uniform(0.72, 0.9) + random.normal(0, 0.07, (size, size))
    grey = paper * (1 - 0.85 * pencil)
    return np.repeat(grey[..., None], 3, axis=2).astype(np.float32)


_DRAWINGS: dict[str, Callable[[Mask, np.random.Generator], Picture]] = {
    "print": _print,
    "outline": _outline,
    "texture": _texture,
    "inverse": _inverse,
    "sketch": _sketch,
}
