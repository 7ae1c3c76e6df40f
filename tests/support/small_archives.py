"""Small archives in the layouts of the true ones; every image says whose it is."""

import dataclasses
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from consoles import silent_console
from PIL import Image
from scipy.io import savemat

from l2l_evograd.experiments.crossdomain.data.archives import (
    LAYOUTS,
    Counts,
    Layout,
    MadeLists,
    make_lists,
)

Files = dict[str, bytes]

CAR_NAMES = ("Ford Freestar 2007", "Ford Edge 2012", "Ram C/V Van 2012", "Acura 2012")


def photo(label: str, number: int) -> bytes:
    file = io.BytesIO()
    colour = (13 * number % 256, len(label), 99)
    Image.new("RGB", (9, 7), colour).save(
        file, "JPEG", comment=f"{label} {number}".encode()
    )
    return file.getvalue()


def cub_files(classes: int = 8, each: int = 3) -> Files:
    names = [f"{i + 1:03}.Bird_{i}" for i in range(classes)]
    images = {
        f"{name}/Bird_{n}.jpg": photo(name, n) for name in names for n in range(each)
    }
    listing = "".join(f"{i} {path}\n" for i, path in enumerate(images, 1))
    return {
        "attributes.txt": b"1 has_bill\n",
        "CUB_200_2011/README": b"birds",
        "CUB_200_2011/images.txt": listing.encode(),
        "CUB_200_2011/images/001.Bird_0/._Bird_0.jpg": b"a Mac's",
        **{f"CUB_200_2011/images/{path}": content for path, content in images.items()},
    }


def cars_files(
    classes: Sequence[int] = (1, 2, 3, 4, 4, 3, 2, 1),
    names: Sequence[str] = CAR_NAMES,
) -> tuple[Files, Files]:
    images, records = {}, []
    for i, number in enumerate(classes, 1):
        name = names[(number - 1) % len(names)]
        images[f"cars_train/{i:05}.jpg"] = photo(name, i)
        records.append((1, 2, 3, 4, number, f"{i:05}.jpg"))
    fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
    annotations = np.array([records], dtype=[(field, object) for field in fields])
    return images, {
        "devkit/README.txt": b"cars",
        "devkit/cars_meta.mat": matlab(class_names=np.array([names], dtype=object)),
        "devkit/cars_train_annos.mat": matlab(annotations=annotations),
    }


def matlab(**variables: Any) -> bytes:
    file = io.BytesIO()
    savemat(file, variables)
    return file.getvalue()


PLACES = ("alley", "apartment_building-outdoor", "barn", "bow_window-indoor")


def places_files(each: int = 4) -> Files:
    """Images in an order that is not theirs by name."""
    files = {
        f"places365_standard/train/{name}/{n:08}.jpg": photo(name, n)
        for n in reversed(range(each))
        for name in PLACES
    }
    return {
        **files,
        "places365_standard/val/alley/00000009.jpg": photo("alley", 9),
        "places365_standard/train/alley/._00000000.jpg": b"a Mac's",
        "places365_standard/train.txt": b"train/alley/00000000.jpg\n",
    }


def places_by_letter(each: int = 4) -> Files:
    return {
        f"data_256/{name[0]}/{name.replace('-', '/')}/{n:08}.jpg": photo(name, n)
        for n in reversed(range(each))
        for name in PLACES
    }


# Images of each category: two pairs of equals, and one too small to be taken.
CATEGORIES = {"100": 2, "9": 3, "10": 3, "2": 5, "71": 2, "30": 1}


def plantae_files() -> Files:
    plants = {
        f"train_val2018/Plantae/{name}/{n:032x}.jpg": photo(name, n)
        for name, count in CATEGORIES.items()
        for n in range(count)
    }
    return {"train_val2018/Insecta/7/a.jpg": photo("7", 0), **plants}


# Wordnet's names, not in the order of the splits.
MINI = {"train": ("n09", "n02"), "val": ("n05",), "test": ("n01",)}


def mini_files(each: int = 3) -> Files:
    return {
        f"mini_imagenet_full_size/{split}/{name}/{name}_{n}.JPEG": photo(name, n)
        for split, names in MINI.items()
        for name in names
        for n in range(each)
    }


def mini_tables(each: int = 3) -> Files:
    files = {}
    for split, names in MINI.items():
        rows = ["filename,label"]
        for name in names:
            for n in range(each):
                files[f"images/{name}_{n}.jpg"] = photo(name, n)
                rows.append(f"{name}_{n}.jpg,{name}")
        files[f"{split}.csv"] = "\n".join(rows).encode()
    return files


def small(name: str, **changes: Any) -> Layout:
    """The data set's own layout, with the counts of what the functions above make."""
    counts: dict[str, Counts] = {
        "cub": Counts(8, 24),
        "cars": Counts(4, 8),
        "places": Counts(4, least=2),
        "plantae": Counts(6, 16),
        "miniImagenet": Counts(4, 12, least=3, splits=(2, 1, 1)),
    }
    fewer = {"places": {"most": 2}, "plantae": {"largest": 5, "most": 3}}
    own = {"counts": counts[name], **fewer.get(name, {}), **changes}
    return dataclasses.replace(LAYOUTS[name], **own)


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write a tar archive, compressed as the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = {".tgz": "gz", ".gz": "gz", ".bz2": "bz2", ".xz": "xz"}.get(path.suffix, "")
    with tarfile.open(path, f"w:{mode}") as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a folder/", "")
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def prepared(layout: Layout, root: Path, *archives: Path) -> MadeLists:
    return make_lists(layout, archives, root, silent_console())


def listed(folder: Path) -> dict[str, list[tuple[int, str]]]:
    """Split -> label and comment of each image, in the list's order."""
    found = {}
    for split in ("base", "val", "novel"):
        content = json.loads((folder / f"{split}.json").read_text())
        comments = [comment(folder / image) for image in content["image_names"]]
        found[split] = list(zip(content["image_labels"], comments, strict=True))
    return found


def label_names(folder: Path) -> list[str]:
    (names,) = {
        tuple(json.loads((folder / f"{split}.json").read_text())["label_names"])
        for split in ("base", "val", "novel")
    }
    return list(names)


def comment(path: Path) -> str:
    with Image.open(path) as image:
        said: bytes = image.info["comment"]
    return said.decode()


def by_rule(
    names: Sequence[str], numbers: Mapping[str, Sequence[int]]
) -> dict[str, list[tuple[int, str]]]:
    """What a list holds by the benchmark's rule, sorted."""
    rules = {
        "base": lambda i: i % 2 == 0,
        "val": lambda i: i % 4 == 1,
        "novel": lambda i: i % 4 == 3,
    }
    return {
        split: sorted(
            (i, f"{name} {n}")
            for i, name in enumerate(names)
            if rule(i)
            for n in numbers[name]
        )
        for split, rule in rules.items()
    }


def in_order(found: Mapping[str, list[tuple[int, str]]]) -> dict[str, Any]:
    return {split: sorted(images) for split, images in found.items()}


def tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
