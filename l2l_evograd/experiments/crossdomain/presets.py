"""Published settings of the cross-domain benchmark, by name.

Source: the released code of Tseng et al., ICLR 2020, and of Bohdal et al., NeurIPS
2021, which have the same settings. This package differs in two points. All methods see
the same episodes, those of the pseudo-seen domain; in the released code, methods
without a learned transformation take the seen domains in turn. Random parts of images
are cut from the file scaled down to twice the image size, not from the file itself.
"""

from collections.abc import Mapping
from typing import Any

from l2l_evograd.checks import InputError, check_choice

_PAPER = {
    "unseen": "cub,cars,places,plantae",
    "base": "miniImagenet",
    "head": "relationnet",
    "backbone": "resnet10",
    "ways": 5,
    "queries": 16,
    "test_queries": 15,
    "image_size": 224,
    "iterations": 40_000,  # 400 epochs of 100 episodes
    "domain_block": 100,  # the two domains change after each epoch
    "augment": True,
    "auxiliary": True,
    "pretrain_epochs": 400,
    "pretrain_batch": 16,
    "pretrain_classes": 200,
    "episodes": 1000,
    "lr": 1e-3,
    "meta_lr": 1e-3,
    "start_scale": 0.3,
    "start_shift": 0.5,
    "seeds": 1,  # a training takes days on photographs
    "save_every": 500,
}

PRESETS: dict[str, dict[str, Any]] = {
    "paper-1shot": {**_PAPER, "shots": 1},
    "paper-5shot": {**_PAPER, "shots": 5},
}


def with_preset(
    given: Mapping[str, Any], preset: str | None, *, resume: bool = False
) -> dict[str, Any]:
    """Return the settings that the user gave, completed by those of a preset.

    Args:
        given: settings that the user gave; they override the preset.
        preset: name of the preset; None: no preset.
        resume: whether a run is resumed. Its settings contain the folder of the data.

    Raises:
        InputError: for an unknown name, or if the folder of the data is missing.
    """
    if preset is None:
        return dict(given)
    check_choice(preset, tuple(PRESETS), "preset")
    if given.get("data") is None and not resume:
        raise InputError(
            f"the preset {preset} is for photographs: expected --data with the folder "
            f"to which l2l-evograd prepare wrote the five data sets, got none"
        )
    return {**PRESETS[preset], **given}
