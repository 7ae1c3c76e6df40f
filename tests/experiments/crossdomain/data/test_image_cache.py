import copy
import pickle
import random

import pytest
import torch

from l2l_evograd.experiments.crossdomain.data.image_cache import ImageCache


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
    assert (len(other), other.held_bytes) == (0, 0)
    for size, held in ((11, 0), (10, 10)):
        other.get(size, lambda size=size: image(size))
        assert other.held_bytes == held
    assert len(cache) == 1


def test_limits_that_are_none_are_refused():
    with pytest.raises(
        ValueError, match="limit_bytes to be a whole number of at least 0"
    ):
        ImageCache(-1)
    with pytest.raises(ValueError, match="limit_bytes to be a whole .* got 2.5"):
        ImageCache(2.5)
