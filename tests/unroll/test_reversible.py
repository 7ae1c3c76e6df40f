"""A run that is taken back: every bit, its precision, its memory, its refusals."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from training_runs import distance, losses, outer, peak_bytes, weights

from l2l_evograd.unroll import Unreversed, reversible_sgd, unrolled_sgd
from l2l_evograd.unroll.fixed_point import InformationBuffer
from l2l_evograd.unroll.reversible_state import ReversibleState

pytestmark = pytest.mark.usefixtures("float64")


def run(mode=reversible_sgd, steps=100, **changed):
    given = {"lr": torch.full((5,), 0.1), "momentum": 230 / 256, "steps": steps}
    return mode(losses(steps), outer, weights(), **{**given, **changed})


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_bit_comes_back_after_500_steps(beta, dtype):
    rng = torch.Generator().manual_seed(0)
    start = [torch.randn(4, 3, generator=rng, dtype=dtype)]
    state = ReversibleState(start, 40, 256)
    slopes = [[torch.randn(4, 3, generator=rng, dtype=dtype)] for _ in range(500)]
    for t, slope in enumerate(slopes):
        state.advance(t, slope, [0.01], [beta], [1e-3])
    assert state.unlike(start) == [0]
    assert (state.words > 0) == (beta in (0.5, 0.9))
    for slope in reversed(slopes):
        state.undo_weights([0.01])
        state.undo_velocity(slope, [beta], [1e-3])
    assert state.unlike(start) == []


def test_the_error_is_that_of_the_digits():
    truth = run(unrolled_sgd)
    errors = {
        (d, bits): distance(run(bits=bits, denominator=d, momentum=beta), truth)
        for d, bits in ((256, 44), (256, 48), (4096, 48))
        for beta in (230 / 256,)
    }
    for (d, bits), error in errors.items():
        assert error < 1e3 * d * 2.0**-bits
    # Four bits more, or a denominator 16 times smaller, cut it about 16-fold.
    assert 4 < errors[256, 44] / errors[256, 48] < 64
    assert 4 < errors[4096, 48] / errors[256, 48] < 64


def test_the_momentum_in_use_is_a_fraction():
    got = run(momentum=0.9)
    assert distance(got, run(unrolled_sgd, momentum=230 / 256)) < 1e-9
    assert distance(got, run(unrolled_sgd, momentum=0.9)) > 1e-4
    fine = run(momentum=0.9, denominator=4096)
    assert distance(fine, run(unrolled_sgd, momentum=3686 / 4096)) < 1e-8


def test_momentum_can_differ_from_step_to_step_and_group_to_group():
    beta = torch.randint(64, 256, (100, 2)) / 256
    given = {"momentum": beta, "groups": ["a", ["b", "c"]]}
    assert distance(run(**given), run(unrolled_sgd, **given)) < 1e-8


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"momentum": 0.0},
            "cannot be taken back.*got 0; use unrolled_sgd, or forward",
        ),
        ({"momentum": torch.tensor([0.9, 1e-9])}, "at least 1/2097152, got 1e-09"),
        ({"bits": 0}, "bits to be a whole number"),
        ({"bits": 61}, "bits to be at most 60"),
        ({"denominator": 1}, "denominator to be a whole number of at least 2"),
        ({"denominator": 2**21}, r"denominator to be at most 2\^20"),
        (
            {"bits": 60, "lr": torch.full((5,), 50.0)},
            r"stay below 2\^\(62 - bits\) = 4 for bits=60, got .* at step",
        ),
        ({"lr": torch.full((5,), 1e4)}, r"stay below .* got .* at step \d+"),
    ],
)
def test_what_cannot_work_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        run(**changed)


def test_start_weights_out_of_range():
    params = {name: 1e5 * weight for name, weight in weights().items()}
    with pytest.raises(ValueError, match="before the first step"):
        reversible_sgd(
            losses(1), outer, params, lr=torch.ones(1), momentum=0.9, steps=1
        )


def test_a_run_that_is_not_finite_says_where():
    def loss(params, lam):
        return sum(p.square().sum() for p in params.values())

    def root(params, lam):  # the value is finite, and its gradient is not
        return loss(params, lam) + (params["a"] * 0).abs().sqrt().sum()

    given = {"lr": torch.tensor(0.1), "momentum": 0.9, "steps": 6}
    with pytest.raises(ValueError, match="no longer finite at step 3"):
        reversible_sgd([loss] * 3 + [root] * 3, outer, weights(), **given)


def test_noise_that_does_not_repeat_is_noticed():
    own = torch.Generator().manual_seed(0)

    def noisy(params, lam):
        noise = torch.randn(4, generator=own)
        return (params["a"] @ noise + params["b"]).square().sum() + params["c"].sum()

    given = {"lr": torch.tensor(0.01), "momentum": 0.5, "steps": 10}
    unrolled_sgd(noisy, outer, weights(), **given)
    with pytest.raises(
        Unreversed, match=r"[123] of 3 weights, such as 'a',.* first at step 9"
    ) as caught:
        reversible_sgd(noisy, outer, weights(), **given)
    assert re.search("use unrolled_sgd or forward_mode", str(caught.value))
    assert isinstance(caught.value, RuntimeError)


def test_division_without_the_buffer_is_noticed(monkeypatch):
    def multiply(self, value, n):
        value.copy_(value * n // self._d)

    def divide(self, value, n):
        value.copy_(value * self._d // n)

    monkeypatch.setattr(InformationBuffer, "multiply", multiply)
    monkeypatch.setattr(InformationBuffer, "divide", divide)
    with pytest.raises(Unreversed):
        run(steps=20)


def test_memory_is_a_number_of_bytes_for_each_weight():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, 2)).float()
    x, y = torch.randn(4, 200, dtype=torch.float32), torch.tensor([0, 1, 0, 1])
    count = sum(p.numel() for p in net.parameters())

    def loss(view):
        return F.cross_entropy(view(x), y)

    def peak(mode, steps, beta):
        rate = torch.full((2,), 0.01)
        return peak_bytes(
            lambda: mode(loss, loss, net, lr=rate, momentum=beta, steps=steps)
        )

    short = peak(reversible_sgd, 10, 0.9)
    assert short < 65 * count
    # 0.15 bits of each weight in a step of 0.9 still fit the buffer, one of 0.5 do not:
    # after 55 steps a word of 4 bytes for each weight fills up in 32.
    assert peak(reversible_sgd, 60, 0.9) < short + 0.1 * count
    long = peak(reversible_sgd, 60, 0.5)
    assert short + 3.9 * count < long < short + 4.1 * count
    assert peak(unrolled_sgd, 60, 0.5) > 3 * long


def test_a_loss_that_draws_nothing_keeps_no_random_states():
    drawing = [False]

    def loss(params, lam):
        value = sum(p.square().sum() for p in params.values())
        return value * torch.rand(()) if drawing[0] else value

    def peak():
        return peak_bytes(
            lambda: reversible_sgd(
                loss, outer, weights(), lr=torch.tensor(0.01), momentum=0.9, steps=40
            )
        )

    quiet = peak()
    drawing[0] = True
    assert quiet < 50_000 < 200_000 < peak() < 300_000
