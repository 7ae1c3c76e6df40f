import random

import pytest
import torch
from tiny import tiny_dataset, tiny_domains

from l2l_evograd.experiments.crossdomain.data.episode_stream import (
    ClassBatches,
    Draws,
    EpisodePairs,
)
from l2l_evograd.experiments.crossdomain.data.episodes import EpisodeSampler


def episode_pairs(**options) -> EpisodePairs:
    samplers = {
        name: EpisodeSampler(domain.splits["base"], 2, 1, 2)
        for name, domain in tiny_domains().items()
    }
    return EpisodePairs(samplers, seed=0, **options)


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_two_domains_of_a_pair_differ_and_all_get_their_turn():
    pairs = episode_pairs()
    names = [pairs.names(number) for number in range(60)]
    assert all(seen != unseen for seen, unseen in names)
    assert len(set(names)) == 6


def test_the_two_domains_stay_for_a_block():
    pairs = episode_pairs(block=5)
    names = [pairs.names(number) for number in range(60)]
    blocks = [names[start : start + 5] for start in range(0, 60, 5)]
    assert all(len(set(block)) == 1 for block in blocks)
    assert len({block[0] for block in blocks}) > 2


def test_a_pair_is_the_same_whenever_it_is_asked_for():
    first, second = episode_pairs(), episode_pairs()
    second.pair(5)
    assert_same(first.pair(3), second.pair(3))


def test_drawing_leaves_the_random_states_alone():
    python, own = random.getstate(), torch.get_rng_state()
    Draws(episode_pairs(), batches=ClassBatches(tiny_dataset("a"), 4, 0))(7)
    assert random.getstate() == python
    assert torch.equal(torch.get_rng_state(), own)


def test_alone_an_iteration_has_the_pair_of_its_number():
    drawn = Draws(episode_pairs())(4)
    assert drawn.numbers == (4,) and drawn.batch is None
    assert_same(drawn.pairs[0], episode_pairs().pair(4))


@pytest.mark.parametrize(("each", "count"), [(1, 4), (2, 2), (4, 1)])
def test_processes_and_turns_share_out_the_same_pairs(each: int, count: int):
    for iteration in range(3):
        numbers = [
            number
            for rank in range(count)
            for number in Draws(episode_pairs(), each=each, rank=rank, count=count)(
                iteration
            ).numbers
        ]
        assert sorted(numbers) == list(range(4 * iteration, 4 * iteration + 4))


def test_batches_have_every_image_at_most_once_and_labels_from_0():
    dataset = tiny_dataset("a", classes=4, each=6)
    dataset.labels = [10 * label for label in dataset.labels]
    batches = ClassBatches(dataset, 20, seed=0)
    assert batches.classes == 4
    images, labels = batches.batch(0)
    assert images.shape == (20, 3, 16, 16)
    assert set(labels.tolist()) == {0, 1, 2, 3}
    assert len({image.sum().item() for image in images}) == 20
    again = batches.batch(0)
    assert torch.equal(images, again[0]) and torch.equal(labels, again[1])
    assert not torch.equal(images, batches.batch(1)[0])


def test_batches_are_no_larger_than_the_data_set():
    assert len(ClassBatches(tiny_dataset("a"), 100, 0).batch(0)[1]) == 24
