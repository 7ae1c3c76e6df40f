"""Pre-trained encoders that one run takes from another, instead of making them anew."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from l2l_evograd.fewshot.settings import CrossDomainSettings
from l2l_evograd.runs.folder import CHECKPOINTS

# What an encoder follows from, besides the seed, which its file is named after.
_SOURCES = (
    "data",
    "base",
    "head",
    "backbone",
    "image_size",
    "augment",
    "lr",
    "pretrain_epochs",
    "pretrain_batch",
    "pretrain_classes",
    "pretrain_classifier",
    "precision",
    "device",
    "devices",
    "nodes",
)


def take_pretrained(
    settings: CrossDomainSettings, out: Path, runs: Iterable[Path]
) -> None:
    """Copy encoders to ``out`` from those runs that made what ``settings`` would make.

    What is in ``out`` already stays.

    Args:
        settings: of the run in ``out``, with nothing left open.
        out: folder of a run.
        runs: folders of others.
    """
    (out / CHECKPOINTS).mkdir(exist_ok=True)
    for run in runs:
        if not _alike(CrossDomainSettings.from_file(run), settings):
            continue
        for path in sorted((run / CHECKPOINTS).glob("*-pretrain.ckpt")):
            if not (out / CHECKPOINTS / path.name).exists():
                shutil.copy(path, out / CHECKPOINTS)


def _alike(one: CrossDomainSettings, other: CrossDomainSettings) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in _SOURCES)
