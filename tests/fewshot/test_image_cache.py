import copy
import pickle
import random

import pytest
import torch

from l2l_evograd.fewshot.image_cache import ImageCache
from l2l_evograd.fewshot.loading import iteration_loader


def image(size: int) -> torch.Tensor:
    return torch.zeros(size, dtype=torch.uint8)


def keys_after(limit: int, wanted: list[int], sizes: list[int]) -> list[list[int]]:
    """What a cache holds after each reading, oldest first, written down naively."""
    held: list[int] = []
    states = []
    for key in wanted:
        if key in held:
            held.remove(key)
            held.append(key)
        elif sizes[key] <= limit:
            held.append(key)
            while sum(sizes[k] for k in held) > limit:
                del held[0]
        states.append(list(held))
    return states


@pytest.mark.parametrize("limit", [0, 7, 30, 1000])
def test_the_longest_unused_go_and_the_limit_is_kept(limit):
    draw = random.Random(limit)
    sizes = [draw.randint(1, 12) for _ in range(12)]
    wanted = [draw.randrange(12) for _ in range(300)]
    cache = ImageCache(limit)
    read: list[int] = []

    def reading(key):
        # Room is made before an image is kept, not afterwards.
        assert cache.held_bytes <= limit
        read.append(key)
        return image(sizes[key])

    expected_reads: list[int] = []
    before: list[int] = []
    for key, expected in zip(wanted, keys_after(limit, wanted, sizes), strict=True):
        assert len(cache.get(key, lambda key=key: reading(key))) == sizes[key]
        expected_reads += [key] * (key not in before)
        assert read == expected_reads
        assert len(cache) == len(expected)
        assert cache.held_bytes == sum(sizes[k] for k in expected) <= limit
        before = expected


def test_an_image_larger_than_the_limit_drives_no_other_out():
    cache = ImageCache(10)
    kept = cache.get("a", lambda: image(8))
    assert cache.get("large", lambda: image(11)).shape == (11,)
    assert cache.get("a", lambda: image(1)) is kept
    assert (len(cache), cache.held_bytes) == (1, 8)


def test_what_is_behind_a_view_counts():
    cache = ImageCache(10)
    cache.get("part", lambda: image(11)[:2])
    assert len(cache) == 0


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))]
)
def test_a_copy_starts_empty_with_the_same_limit(copied):
    cache = ImageCache(10)
    cache.get("a", lambda: image(8))
    other = copied(cache)
    assert (other.limit_bytes, len(other), other.held_bytes) == (10, 0, 0)
    assert len(cache) == 1


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_worker_keeps_to_its_share():
    cache = ImageCache(100)
    for key in range(10):
        cache.get(key, lambda: image(10))

    def held(iteration):
        cache.get(("of the worker", iteration), lambda: image(10))
        return cache.allowed_bytes, cache.held_bytes, len(cache)

    assert [made for _, made in iteration_loader(held, 0, 4, 2)] == [(50, 50, 5)] * 4
    assert (cache.allowed_bytes, cache.held_bytes) == (100, 100)


def test_limits_that_are_none_are_refused():
    with pytest.raises(ValueError, match="limit_bytes to be at least 0, got -1"):
        ImageCache(-1)
    with pytest.raises(TypeError, match="limit_bytes to be a whole number, got 2.5"):
        ImageCache(2.5)
