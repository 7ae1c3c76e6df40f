"""``get_tasksets``: tasks over the domains, with learn2learn's call signature.

The function returns learn2learn's own ``Taskset`` objects. They therefore work with
``EpisodicBatcher``, ``DataLoader``, and a loop of ``sample()``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from l2l_evograd.checks import InputError, check_count
from l2l_evograd.experiments.crossdomain.data.domains import (
    Dataset,
    built_in_domains,
    listed_domain,
)
from l2l_evograd.experiments.crossdomain.data.episodes import (
    check_enough,
    make_taskset,
)
from l2l_evograd.experiments.crossdomain.data.filelists import (
    SPLITS,
    read_lists,
    usual_side,
)
from l2l_evograd.experiments.from_learn2learn import BenchmarkTasksets, benchmarks


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

    The function can replace ``l2l.vision.benchmarks.get_tasksets``. The base classes
    of a domain are for training, its val classes for validation, and its novel classes
    for the test. Tasks are drawn with Python's ``random``, as in learn2learn.

    Args:
        name: the first of these that exists: a built-in domain ("print", "outline",
            "texture", "inverse", "sketch"); a folder ``root/name`` with base.json,
            val.json and novel.json (see :mod:`~.filelists`); one of learn2learn's
            names, for which learn2learn's own function is called.
        train_ways: number of classes of a training task.
        train_samples: number of images of each class of a training task, support and
            query together.
        test_ways: number of classes of a validation or test task.
        test_samples: number of images of each class of a validation or test task.
        num_tasks: number of tasks of each split; -1: every task is new. Tasks of a
            limited number cannot be pickled after one has been drawn, so start spawned
            workers before that.
        root: folder of the data; ``~`` is expanded.
        device: device of the tensors of a task; None: the CPU. Images are stored on
            the CPU and moved task by task.
        **kwargs: for a built-in domain, ``image_size`` (32 pixels), ``seed`` (0) and
            ``images_per_class`` (30); for a folder, ``image_size``, by default the
            side of its first image and at most 84; for learn2learn's names, the
            keywords of learn2learn's function.

    Returns:
        ``BenchmarkTasksets(train, validation, test)``. A task is a pair: images of
        shape (ways · samples, 3, H, W), normalised, and labels of shape
        (ways · samples,), 0 to ways − 1 in ascending order.

    Raises:
        InputError: for an unknown name, too few classes for the ways, too few images
            of a class for the samples, or a folder that lacks one of the three lists.
        TypeError: for a keyword that the domain does not accept.

    Cost: images are drawn or read when a task first needs them, and then kept as bytes.
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
        raise InputError(_unknown(name, folder.parent))
    sizes = {
        "base": ("train", train_ways, train_samples),
        "val": ("test", test_ways, test_samples),
        "novel": ("test", test_ways, test_samples),
    }
    for split, (prefix, ways, samples) in sizes.items():
        names = f"{prefix}_ways", f"{prefix}_samples"
        for name_of, count in zip(names, (ways, samples), strict=True):
            check_count(count, name_of)
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
    # Only this folder is read, because other domains may be large or broken.
    lists = read_lists(folder)
    if image_size is None:
        image_size = usual_side(lists["base"])
    return listed_domain(folder.name, lists, image_size).splits


def _lists_in(folder: Path) -> list[str]:
    names = [f"{split}.json" for split in SPLITS]
    return [name for name in names if (folder / name).is_file()]


def _unknown(name: str, root: Path) -> str:
    folders = sorted(root.iterdir()) if root.is_dir() else []
    found = [folder.name for folder in folders if _lists_in(folder)]
    return (
        f"expected a name of tasksets, got {name!r}. Built-in domains: "
        f"{', '.join(built_in_domains())}; domains in {root}: "
        f"{', '.join(found) or 'none'}; learn2learn's own: "
        f"{', '.join(benchmarks.list_tasksets())}. For your own images, give root, the "
        f"folder that contains NAME/base.json, NAME/val.json and NAME/novel.json"
    )


class _CollateOn:
    """Stacks the items of a task on a device. An object can be sent to workers."""

    def __init__(self, device: torch.device | str) -> None:
        self._device = torch.device(device)

    def __call__(self, items: list[Any]) -> list[Tensor]:
        return [tensor.to(self._device) for tensor in default_collate(items)]
