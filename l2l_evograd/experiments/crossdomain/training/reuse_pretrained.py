"""Reuse the pre-trained encoder of another run instead of training it again."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from l2l_evograd.experiments.crossdomain.settings import CrossDomainSettings
from l2l_evograd.experiments.folder import CHECKPOINTS


def reuse_pretrained(
    settings: CrossDomainSettings, out: Path, runs: Iterable[Path]
) -> None:
    """Copy encoders to ``out`` from runs whose encoders would be the same.

    Encoders would be the same if the runs agree in every setting that is marked
    ``encoder``. The name of the file contains the seed. Encoders that ``out`` already
    has are kept.

    Args:
        settings: settings of the run in ``out``, without open values.
        out: folder of a run.
        runs: folders of other runs.
    """
    (out / CHECKPOINTS).mkdir(exist_ok=True)
    for run in runs:
        other = CrossDomainSettings.from_file(run)
        names = settings.marked("encoder")
        if any(getattr(other, name) != getattr(settings, name) for name in names):
            continue
        for path in sorted((run / CHECKPOINTS).glob("*-pretrain.ckpt")):
            if not (out / CHECKPOINTS / path.name).exists():
                shutil.copy(path, out / CHECKPOINTS)
