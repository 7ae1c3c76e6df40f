"""``get_tasksets``: tasks over our domains, called as learn2learn's function is.

The answer holds learn2learn's own ``Taskset`` objects, so that everything which takes
those (``EpisodicBatcher``, ``DataLoader``, a loop of ``sample()``) takes these.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import learn2learn.vision.benchmarks as benchmarks
import torch
from learn2learn.vision.benchmarks import BenchmarkTasksets
from torch import Tensor
from torch.utils.data import default_collate

from l2l_evograd.fewshot.domains import (
    SPLITS,
    Dataset,
    built_in_domains,
    listed_domain,
)
from l2l_evograd.fewshot.episodes import check_counts, check_enough, make_taskset
from l2l_evograd.fewshot.filelists import read_filelist, smallest_side
from l2l_evograd.fewshot.settings import default_image_size


def get_tasksets(
    name: str,
    train_ways: int = 5,
    train_samples: int = 10,
    test_ways: int = 5,
    test_samples: int = 10,
    num_tasks: int = -1,
    root: str | Path = "~/data",
    device: torch.device | str | None = None,
    **kwargs: Any,
) -> BenchmarkTasksets:
    """Return the meta-training, validation and test tasks of a domain.

    Stands in for ``l2l.vision.benchmarks.get_tasksets``. The base classes of a domain
    are for training, its val classes for validation, its novel classes for testing.
    Tasks are drawn with Python's ``random``, as learn2learn's are.

    Args:
        name: the first of these that exists: a built-in domain ("print", "outline",
            "texture", "inverse", "sketch"); a folder ``root/name`` with base.json,
            val.json and novel.json (see :mod:`l2l_evograd.fewshot.filelists`); one
            of learn2learn's names, which learn2learn's own function then answers.
        train_ways: classes of a training task.
        train_samples: images of each class of a training task, support and query
            together.
        test_ways: classes of a validation or test task.
        test_samples: images of each class of a validation or test task.
        num_tasks: how many tasks there are of each kind; -1: a new one whenever one
            is asked for. Tasks of a limited number, once drawn, do not pickle: start
            spawned workers before the first.
        root: folder of the data; ``~`` is expanded.
        device: where the tensors of a task come; None: the CPU. Images are stored on
            the CPU and moved task by task.
        **kwargs: for a built-in domain ``image_size`` (32 pixels), ``seed`` (0) and
            ``images_per_class`` (30); for a folder ``image_size``, by default the
            side of its first image, 84 at most; for learn2learn's names what
            learn2learn takes.

    Returns:
        ``BenchmarkTasksets(train, validation, test)``. A task is a pair: images of
        shape (ways · samples, 3, H, W), normalised, and labels of shape
        (ways · samples,), 0 to ways − 1 in ascending order.

    Raises:
        ValueError: for a name that stands for nothing, too few classes for the ways,
            or too few images of a class for the samples.
        FileNotFoundError: for a folder that holds some of the three lists only.
        TypeError: for a keyword that the domain does not take.

    Cost: images are drawn or read when a task first needs them, then kept as bytes.
    """
    folder = Path(root).expanduser() / name
    if name in built_in_domains():
        splits = _built_in_splits(name, **kwargs)
    elif _lists_in(folder):
        splits = _splits_of_folder(folder, **kwargs)
    elif name in benchmarks.list_tasksets():
        return benchmarks.get_tasksets(
            name,
            train_ways=train_ways,
            train_samples=train_samples,
            test_ways=test_ways,
            test_samples=test_samples,
            num_tasks=num_tasks,
            root=str(root),
            device=device,
            **kwargs,
        )
    else:
        raise ValueError(_unknown(name, folder.parent))
    sizes = {
        "base": ("train", train_ways, train_samples),
        "val": ("test", test_ways, test_samples),
        "novel": ("test", test_ways, test_samples),
    }
    for split, (prefix, ways, samples) in sizes.items():
        names = f"{prefix}_ways", f"{prefix}_samples"
        check_counts(dict(zip(names, (ways, samples), strict=True)))
        check_enough(splits[split], ways, samples, f"{samples} samples", names)
    collate = default_collate if device is None else _CollateOn(device)
    return BenchmarkTasksets(
        *(
            make_taskset(splits[split], ways, samples, num_tasks, task_collate=collate)
            for split, (_, ways, samples) in sizes.items()
        )
    )


def _built_in_splits(name: str, **options: int) -> Mapping[str, Dataset]:
    return built_in_domains(**options)[name].splits


def _splits_of_folder(
    folder: Path, image_size: int | None = None
) -> Mapping[str, Dataset]:
    # Only this folder is read: a domain beside it may be large, or broken.
    missing = {f"{split}.json" for split in SPLITS} - set(_lists_in(folder))
    if missing:
        raise FileNotFoundError(
            f"expected base.json, val.json and novel.json in {folder}, "
            f"{' and '.join(sorted(missing))} missing"
        )
    lists = {split: read_filelist(folder / f"{split}.json") for split in SPLITS}
    if image_size is None:
        image_size = default_image_size("cnn4", smallest_side(lists["base"]))
    return listed_domain(folder.name, lists, image_size).splits


def _lists_in(folder: Path) -> list[str]:
    names = [f"{split}.json" for split in SPLITS]
    return [name for name in names if (folder / name).is_file()]


def _unknown(name: str, root: Path) -> str:
    folders = sorted(root.iterdir()) if root.is_dir() else []
    found = [folder.name for folder in folders if _lists_in(folder)]
    return (
        f"expected the name of tasksets, got {name!r}. Built-in domains: "
        f"{', '.join(built_in_domains())}; domains in {root}: "
        f"{', '.join(found) or 'none'}; learn2learn's own: "
        f"{', '.join(benchmarks.list_tasksets())}. For images of your own give root, "
        f"the folder that holds NAME/base.json, NAME/val.json and NAME/novel.json"
    )


class _CollateOn:
    """Stacks the items of a task on a device; an object, so that workers get it."""

    def __init__(self, device: torch.device | str) -> None:
        self._device = torch.device(device)

    def __call__(self, items: list[Any]) -> list[Tensor]:
        return [tensor.to(self._device) for tensor in default_collate(items)]
