import pytest
import torch
from torch import nn

from l2l_evograd import EvoGrad, Exact, Guided
from l2l_evograd.experiments.precision import LossScale, autocast, estimator_for

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_a_model_is_called_in_the_precision(precision: str, dtype: torch.dtype):
    with autocast(precision, CPU):
        assert nn.Linear(3, 2)(torch.ones(1, 3)).dtype == dtype


def test_only_short_steps_of_finite_differences_are_lengthened():
    assert estimator_for("bf16", Guided(h=0.01)) == Guided(h=0.1)
    assert estimator_for("bf16", Guided(h=0.5)) == Guided(h=0.5)
    assert estimator_for("32", Guided(h=0.01)) == Guided(h=0.01)
    assert estimator_for("fp16", Exact()) == Exact()
    assert estimator_for("fp16", None) is None


def test_gradients_of_scaled_losses_are_divided_again():
    scale = LossScale()
    weight = nn.Parameter(torch.tensor([3.0]))
    scale.scaled((weight**2).sum()).backward()
    assert weight.grad == 6 * 1024
    scale.unscale([weight, nn.Parameter(torch.ones(2))])
    assert weight.grad == 6
    scale.update()
    assert scale.state == [1024.0, 1.0]


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_an_overflow_drops_all_gradients_of_the_step_and_halves_the_scale(bad: float):
    scale = LossScale([8.0, 5.0])
    first, second = (nn.Parameter(torch.ones(2)) for _ in range(2))
    first.grad, second.grad = torch.tensor([1.0, bad]), torch.ones(2)
    scale.unscale([first])
    scale.unscale([second])
    assert first.grad is None and second.grad is None
    scale.update()
    assert scale.state == [4.0, 0.0]
    second.grad = torch.ones(2)
    scale.unscale([second])
    assert second.grad.tolist() == [0.25, 0.25]


def test_the_scale_doubles_after_long_without_overflow():
    scale = LossScale([8.0, LossScale.PATIENCE - 1.0])
    scale.update()
    assert scale.state == [16.0, 0.0]


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_loss_that_is_no_number_becomes_one(bad: float):
    loss = torch.tensor(bad, requires_grad=True)
    assert LossScale().scaled(loss).isfinite()


def test_a_population_weighs_scaled_losses_as_it_would_the_others():
    scale = LossScale([16.0, 0.0])
    scaled = scale.estimator(EvoGrad(temperature=0.05))
    losses = torch.tensor([1.0, 1.2], dtype=torch.float64)
    torch.testing.assert_close(
        torch.softmax(-16 * losses / scaled.temperature, 0),
        torch.softmax(-losses / 0.05, 0),
        rtol=1e-12,
        atol=0,
    )
    assert scale.estimator(Guided()) == Guided()
