"""Images, settings and modules small enough for a test to train on."""

from pathlib import Path

import torch
from consoles import silent_console
from torch import nn

from l2l_evograd.experiments.noisy_labels.experiment import NoisyLabelExperiment
from l2l_evograd.experiments.noisy_labels.images import ImageSource, LabelledImages
from l2l_evograd.experiments.noisy_labels.module import NoisyLabelModule
from l2l_evograd.experiments.noisy_labels.settings import NoisyLabelSettings

CLASSES, SIDE = 4, 16


def coloured(each: int, seed: int) -> LabelledImages:
    """Classes are colours under noise: to be learned, but not at once."""
    generator = torch.Generator().manual_seed(seed)
    colours = torch.tensor([[90, 90, 160], [90, 160, 90], [160, 90, 90], [128] * 3])
    labels = torch.arange(CLASSES).repeat(each)
    noise = torch.randint(-60, 60, (len(labels), 3, SIDE, SIDE), generator=generator)
    images = (colours[labels][:, :, None, None] + noise).clamp(0, 255)
    return LabelledImages(images.to(torch.uint8), labels)


def tiny_source() -> ImageSource:
    names = [f"colour {number}" for number in range(CLASSES)]
    return ImageSource("colours", coloured(15, 0), coloured(5, 1), names, shift=1)


def tiny_settings(**changes: object) -> NoisyLabelSettings:
    values: dict[str, object] = {
        "methods": ("frozen", "guided"),
        "weighting": "net",
        "seeds": 1,
        "meta_images": 8,
        "batch_size": 10,
        "iterations": 7,
        "device": "cpu",
        **changes,
    }
    return NoisyLabelSettings(**values).resolved()  # type: ignore[arg-type]


def tiny_experiment(out: Path, **changes: object) -> NoisyLabelExperiment:
    settings = tiny_settings(**changes)
    return NoisyLabelExperiment(settings, out, silent_console(), tiny_source())


def tiny_module(**changes: object) -> NoisyLabelModule:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(4 * 7 * 7, CLASSES),
    )  # fmt: skip
    train, meta = (
        torch.utils.data.TensorDataset(images.images / 255, images.labels)
        for images in (coloured(10, 0), coloured(3, 2))
    )
    options = {"batch_size": 10, "iterations": 7, "lr": 0.01, **changes}
    return NoisyLabelModule(model, train, meta, **options)  # type: ignore[arg-type]
