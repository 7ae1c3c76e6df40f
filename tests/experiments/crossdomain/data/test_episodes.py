import random

import pytest
import torch

from l2l_evograd.experiments.crossdomain.data.domains import Dataset
from l2l_evograd.experiments.crossdomain.data.episodes import EpisodeSampler


def dataset(classes=6, each=5):
    """Images whose every pixel says which image it is."""
    labels = [3 + 2 * label for label in range(classes) for _ in range(each)]
    names = [f"class {i}" for i in range(max(labels) + 1)]

    def read(index):
        return torch.full((3, 2, 2), index, dtype=torch.uint8)

    statistics = ((0.0,) * 3, (1 / 255,) * 3)
    return Dataset("test/base", read, labels, names, statistics)


def numbers(images):
    return images[:, 0, 0, 0].round().long().tolist()


def test_an_episode_holds_what_was_asked_for():
    data = dataset()
    sampler = EpisodeSampler(data, ways=4, shots=2, queries=3)
    for seed in range(20):
        episode = sampler.sample(seed)
        support, query = numbers(episode.support_x), numbers(episode.query_x)
        assert len(support) == 8 and len(query) == 12
        assert len({*support, *query}) == 20
        classes = {}
        for index, label in zip(
            [*support, *query],
            [*episode.support_y.tolist(), *episode.query_y.tolist()],
            strict=True,
        ):
            classes.setdefault(label, set()).add(data.labels[index])
        assert sorted(classes) == [0, 1, 2, 3]
        assert all(len(names) == 1 for names in classes.values())
        assert episode.support_y.bincount().tolist() == [2] * 4
        assert episode.query_y.bincount().tolist() == [3] * 4


def test_the_seed_decides_and_global_random_states_stay():
    sampler = EpisodeSampler(dataset(), 3, 1, 2)
    before = random.getstate(), torch.get_rng_state()
    first, again, other = sampler.sample(5), sampler.sample(5), sampler.sample(6)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.support_x, other.support_x)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_every_class_and_image_is_drawn_at_times():
    sampler = EpisodeSampler(dataset(), 3, 1, 2)
    seen = set()
    for seed in range(60):
        seen |= set(numbers(sampler.sample(seed).support_x))
    assert seen == set(range(30))


def test_too_few_classes_or_images_are_refused():
    with pytest.raises(ValueError, match="test/base has 6 classes, too few for 7 ways"):
        EpisodeSampler(dataset(), 7, 1, 1)
    message = "class 'class 3' of test/base has 5 images, too few for 2 shots and 4"
    with pytest.raises(ValueError, match=message):
        EpisodeSampler(dataset(), 3, 2, 4)
    with pytest.raises(ValueError, match="expected shots to be a whole .* got 0"):
        EpisodeSampler(dataset(), 3, 0, 4)
