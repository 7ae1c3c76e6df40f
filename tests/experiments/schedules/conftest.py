"""A problem of three kinds of small pictures, and settings of short runs on it."""

from collections.abc import Callable

import pytest
import torch

from l2l_evograd.experiments.schedules.problem import Problem
from l2l_evograd.experiments.schedules.settings import SchedulesSettings
from l2l_evograd.experiments.schedules.sources import Images, Splits


def pictures(count: int, seed: int) -> Images:
    rng = torch.Generator().manual_seed(seed)
    kinds = torch.randint(0, 256, (3, 1, 6, 5), generator=torch.Generator())
    labels = torch.arange(count) % 3
    noise = torch.randint(-60, 61, (count, 1, 6, 5), generator=rng)
    return Images((kinds[labels] + noise).clamp(0, 255).to(torch.uint8), labels)


class Fragile(Problem):
    """A problem whose runs grow without bound at large rates: squares of scores."""

    def _loss(self, images, indices, params, _):
        pixels, _labels = images if indices is None else images.of(indices)
        growing = 1e-3 * self._scores(params, pixels).square().sum()
        return super()._loss(images, indices, params, None) + growing


@pytest.fixture(scope="session")
def splits() -> Splits:
    parts = [pictures(count, seed) for seed, count in enumerate((90, 60, 60))]
    return Splits("small pictures", 3, *parts)


@pytest.fixture
def settings() -> Callable[..., SchedulesSettings]:
    def make(**changes: object) -> SchedulesSettings:
        values: dict[str, object] = {
            **{"steps": 14, "windows": 3, "batch_size": 8, "budget": 14 * 20},
            **{"fresh_seeds": 2, "momentum": 0.8, "seeds": 1},
            **changes,
        }
        return SchedulesSettings(**values)  # type: ignore[arg-type]

    return make


@pytest.fixture
def problem(splits, settings) -> Callable[..., Problem]:
    return lambda **changes: Problem(splits, settings(**changes))


@pytest.fixture
def fragile(splits, settings) -> Callable[..., Problem]:
    return lambda **changes: Fragile(splits, settings(**changes))
