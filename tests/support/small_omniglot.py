"""Omniglot's two archives in small: the same layout, a few characters."""

import io
import zipfile
from pathlib import Path

from PIL import Image

# Number of characters of each alphabet.
FIRST = {"Balinese": 4, "Greek": 4, "Korean": 2}
SECOND = {"Greek": 3, "Tagalog": 3}


def write_archives(folder: Path, each: int = 4) -> None:
    for number, alphabets in ((1, FIRST), (2, SECOND)):
        name = f"images_background_small{number}"
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            archive.writestr(f"{name}/", b"")
            for alphabet, characters in alphabets.items():
                for character in range(1, characters + 1):
                    for copy in range(1, each + 1):
                        place = f"{name}/{alphabet}/character{character:02}"
                        path = f"{place}/{character:04}_{copy:02}.png"
                        archive.writestr(path, drawing(character, copy))


def drawing(character: int, copy: int) -> bytes:
    """Ink (0) in the upper left corner of paper (255); more for later characters."""
    picture = Image.new("1", (105, 105), 1)
    for row in range(8 * character + copy):
        for column in range(30):
            picture.putpixel((column, row), 0)
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()
