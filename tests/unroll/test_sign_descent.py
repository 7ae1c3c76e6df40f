"""Sign descent: its rule, its bounds, its state, and a learned schedule."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_runs import losses, outer, weights

from l2l_evograd.unroll import SignDescent, forward_mode, unrolled_sgd

pytestmark = pytest.mark.usefixtures("float64")

slopes = st.lists(st.sampled_from([-3.0, -0.1, 0.0, 0.2, 5.0]), max_size=20)


@settings(max_examples=50, deadline=None)
@given(st.lists(slopes, min_size=1, max_size=3), st.floats(0.1, 1.0))
def test_it_is_the_rule_of_the_authors_code(columns, decay):
    length = min(len(column) for column in columns)
    value = torch.zeros(len(columns), dtype=torch.float64)
    optimizer = SignDescent([value], lr=0.1, decay=decay, lower=-0.25, upper=0.35)
    expected, gamma = [0.0] * len(columns), [0.1] * len(columns)
    old = [0.0] * len(columns)
    for t in range(length):
        value.grad = torch.tensor([c[t] for c in columns], dtype=torch.float64)
        optimizer.step()
        for i, column in enumerate(columns):
            sign = (column[t] > 0) - (column[t] < 0)
            if sign * old[i] == -1:
                gamma[i] *= decay
            old[i] = sign
            expected[i] = min(max(expected[i] - sign * gamma[i], -0.25), 0.35)
        assert value.tolist() == pytest.approx(expected)


def test_values_stay_at_least_0_by_default():
    value = torch.tensor([0.05, 0.5])
    optimizer = SignDescent([value], lr=0.1)
    for _ in range(3):
        value.grad = torch.tensor([1.0, -1.0])
        optimizer.step()
    assert value.tolist() == pytest.approx([0.0, 0.8])


def test_a_learning_rate_scheduler_scales_the_steps():
    value = torch.tensor([1.0])
    optimizer = SignDescent([value], lr=0.1)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for _ in range(3):
        value.grad = torch.tensor([1.0])
        optimizer.step()
        decay.step()
    assert value.tolist() == pytest.approx([1 - 0.1 - 0.05 - 0.025])


def test_groups_closures_and_saved_states():
    one, two = torch.tensor([0.5]), torch.tensor([0.5])
    groups = [{"params": [one]}, {"params": [two], "lr": 0.01, "upper": 0.505}]

    def run(optimizer, signs):
        for sign in signs:
            one.grad, two.grad = torch.tensor([sign]), torch.tensor([-sign])
            assert optimizer.step(lambda: 7.0) == 7.0

    first = SignDescent(groups)
    run(first, [1.0, -1.0])
    saved, values = first.state_dict(), (one.clone(), two.clone())
    run(first, [1.0, 1.0])
    expected = one.tolist(), two.tolist()
    one.copy_(values[0]), two.copy_(values[1])
    again = SignDescent(groups)
    again.load_state_dict(saved)
    run(again, [1.0, 1.0])
    assert (one.tolist(), two.tolist()) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1}, "lr to be at least 0"),
        ({"decay": 0}, "decay to be positive"),
        ({"decay": 1.5}, "decay to be at most 1, got 1.5"),
        ({"lower": 1.0, "upper": 0.5}, "lower to be at most upper, got 1.0 and 0.5"),
    ],
)
def test_settings_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        SignDescent([torch.zeros(1)], **options)


def test_a_diverged_run_moves_nothing_and_says_so():
    value = torch.tensor([0.5, 0.5])
    optimizer = SignDescent([value])
    value.grad = torch.tensor([1.0, float("nan")])
    with pytest.raises(ValueError, match="the training run diverged"):
        optimizer.step()
    assert value.tolist() == [0.5, 0.5]


def test_a_schedule_is_learned():
    lr = torch.full((5,), 0.02)
    optimizer = SignDescent([lr], lr=0.1)
    values = []
    for _ in range(12):
        result = forward_mode(
            losses(40), outer, weights(), lr=lr, momentum=0.5, steps=40
        )
        values.append(float(result.outer_loss))
        lr.grad = result.schedule["lr"]
        optimizer.step()
    constant = min(
        float(
            unrolled_sgd(
                losses(40), outer, weights(), lr=torch.tensor(c), momentum=0.5, steps=40
            ).outer_loss
        )
        for c in (0.05, 0.1, 0.2, 0.4, 0.8)
    )
    assert min(values) < constant < values[0]
