"""A domain of photographs in the file-list layout, in small."""

import json
from pathlib import Path

from PIL import Image


def make_domain(
    root: Path,
    name: str = "birds",
    size: tuple[int, int] = (20, 20),
    absolute: bool = False,
) -> Path:
    folder = root / name
    (folder / "images").mkdir(parents=True)
    for position, split in enumerate(("base", "val", "novel")):
        names, labels = [], []
        for label in (2 * position, 2 * position + 1):
            for copy in range(2):
                path = folder / "images" / f"{label}-{copy}.png"
                Image.new("RGB", size, (40 * label, copy, 0)).save(path)
                names.append(str(path) if absolute else f"images/{path.name}")
                labels.append(label)
        content = {
            "label_names": [f"class {i}" for i in range(6)],
            "image_names": names,
            "image_labels": labels,
        }
        (folder / f"{split}.json").write_text(json.dumps(content))
    return folder
