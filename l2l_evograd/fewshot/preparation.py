"""From what was asked for to a checked experiment; nothing is written here."""

from pathlib import Path

from rich.console import Console

from l2l_evograd.fewshot.domains import Domain, built_in_domains, read_domains
from l2l_evograd.fewshot.experiment import Experiment
from l2l_evograd.fewshot.image_cache import ImageCache
from l2l_evograd.fewshot.settings import (
    CrossDomainSettings,
    data_folder,
    default_image_size,
)
from l2l_evograd.runs.command import say


def prepare(settings: CrossDomainSettings, out: Path, console: Console) -> Experiment:
    """Check everything that can be checked before training.

    Args:
        settings: what was asked for.
        out: folder of the run.
        console: where to say what happens.

    Raises:
        ValueError, FileNotFoundError, PermissionError: naming what is wrong with the
            data, the domains, or the size of the episodes.
    """
    root = data_folder(settings)
    own_size = None if root is None else _smallest_side(root)
    size = settings.image_size
    if size is None:
        size = default_image_size(settings.backbone, own_size)
    domains = _domains(root, size, settings.cache)
    settings = settings.resolved(list(domains), size)
    experiment = Experiment(settings, domains, out, console)
    _announce(experiment, own_size)
    return experiment


def _domains(root: Path | None, image_size: int, cache: float) -> dict[str, Domain]:
    if root is None:
        return built_in_domains(image_size=image_size)
    return read_domains(root, image_size, ImageCache(round(cache * 2**30)))


def _smallest_side(root: Path) -> int:
    """Return the smallest side of each domain's first image.

    Opening them all would take as long as the training.
    """
    from l2l_evograd.fewshot.filelists import (
        find_domains,
        read_filelist,
        smallest_side,
    )

    return min(
        smallest_side(read_filelist(files["base"]))
        for files in find_domains(root).values()
    )


def _announce(experiment: Experiment, own_size: int | None) -> None:
    settings = experiment.settings
    size = f"{settings.image_size} px"
    if own_size is not None:
        size += f" (shorter side of the images on disk: {own_size} px)"
    source = "built-in glyphs" if settings.data is None else settings.data
    for line in (
        f"Cross-domain few-shot learning, {source}, {size}: train on "
        f"{', '.join(experiment.seen)}; test on {settings.unseen}",
        f"{settings.ways}-way {settings.shots}-shot, {settings.head} on "
        f"{settings.backbone}, {settings.iterations} meta-iterations on "
        f"{settings.device}; results in {experiment.out}",
    ):
        say(experiment.console, line)
