"""Published settings of the cross-domain benchmark, by name.

Source: the released code of Tseng et al., ICLR 2020, and of Bohdal et al., NeurIPS
2021, which share them. Two things differ. Here all methods see the same episodes,
those of the pseudo-seen domain, while there the methods without learned transformation
take the seen domains in turn. And images are cut from the file scaled down to twice the
image size, not from the file itself.
"""

from collections.abc import Mapping
from typing import Any

from l2l_evograd.runs.settings import check_one_of

# Each epoch of 100 episodes has two domains of its own; there are 400 epochs.
_PAPER = {
    "unseen": ("cub", "cars", "places", "plantae"),
    "base": "miniImagenet",
    "head": "relationnet",
    "backbone": "resnet10",
    "ways": 5,
    "queries": 16,
    "test_queries": 15,
    "image_size": 224,
    "iterations": 40_000,
    "domain_block": 100,
    "augment": True,
    "auxiliary": True,
    "pretrain_epochs": 400,
    "pretrain_batch": 16,
    "pretrain_classes": 200,
    "episodes": 1000,
    "lr": 1e-3,
    "meta_lr": 1e-3,
    "save_every": 500,
}

PRESETS: dict[str, dict[str, Any]] = {
    "paper-1shot": {**_PAPER, "shots": 1},
    "paper-5shot": {**_PAPER, "shots": 5},
}


def with_preset(
    options: Mapping[str, Any], given: Mapping[str, Any], *, resume: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return options, and those that were asked for, with a preset's among them.

    Args:
        options: a value for each setting, and the name under ``"preset"``, or None.
        given: those of them that were asked for; they outdo the preset.
        resume: whether they are for a run that is there, which knows its data.

    Raises:
        ValueError: for an unknown name, or without data of one's own.
    """
    options, given = dict(options), dict(given)
    name = options.pop("preset", None)
    given.pop("preset", None)
    if name is None:
        return options, given
    check_one_of("preset", name, PRESETS)
    if options["data"] is None and not resume:
        raise ValueError(
            f"the preset {name} is for photographs: expected --data, the folder that "
            f"l2l-evograd prepare has written the five data sets to"
        )
    given = {**PRESETS[name], **given}
    return {**options, **given}, given
