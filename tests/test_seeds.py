import pytest
import torch

from l2l_evograd.seeds import derive_seed, seeded

CPU = torch.device("cpu")


def test_a_seed_follows_from_all_parts_and_their_order():
    seeds = [
        derive_seed(0, "a", 1),
        derive_seed(0, "a", 2),
        derive_seed(1, "a", 0),
        derive_seed(0, 1, "a"),
        derive_seed(0, "a", "1"),
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_seed_is_the_same_in_every_process():
    assert derive_seed(0, "forward", 7) == 8453696360366457353


def test_the_body_is_seeded_and_the_state_put_back():
    before = torch.get_rng_state()
    with seeded(3, CPU):
        first = torch.rand(2)
    with seeded(3, CPU):
        second = torch.rand(2)
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_state_is_put_back_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(KeyError), seeded(3, CPU):
        torch.rand(2)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)
