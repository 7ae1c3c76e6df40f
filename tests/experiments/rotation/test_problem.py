import math
from typing import Any

import pytest
import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import rotate

from l2l_evograd import bilevel_step
from l2l_evograd.data.digits import Digits, DigitSplits, built_in_digits
from l2l_evograd.experiments.rotation.problem import (
    TurningLeNet,
    accuracy,
    method_options,
    train,
    turned,
)
from l2l_evograd.experiments.rotation.settings import METHODS, RotationSettings


@pytest.fixture(scope="module")
def digits() -> DigitSplits:
    return built_in_digits()


@pytest.mark.parametrize("degrees", [30.0, -75.0])
def test_images_turn_as_torchvision_turns_them(degrees):
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    found = turned(images, math.radians(degrees))
    expected = rotate(images, degrees, interpolation=InterpolationMode.BILINEAR)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.usefixtures("float64")
def test_the_derivative_by_the_angle_is_that_of_a_finite_difference():
    images = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    angle, h = torch.tensor(0.3, requires_grad=True), 1e-7
    (found,) = torch.autograd.grad(turned(images, angle).square().sum(), angle)
    ends = [float(turned(images, 0.3 + s).square().sum()) for s in (h, -h)]
    assert float(found) == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-6)


@pytest.mark.usefixtures("float64")
def test_the_exact_method_differentiates_the_unrolled_step(digits):
    torch.manual_seed(0)
    model = TurningLeNet()
    with torch.no_grad():
        model.angle.fill_(0.2)
    train_, other = (
        Digits(part.images[:16].double(), part.labels[:16]) for part in digits[:2]
    )
    angle = model.angle.detach().clone().requires_grad_()
    weights = {n: p.detach().clone() for n, p in model.network.named_parameters()}
    theta = {n: p.requires_grad_() for n, p in weights.items()}

    def loss(params, images, labels):
        scores = functional_call(model.network, params, ((images - 0.1307) / 0.3081,))
        return cross_entropy(scores, labels)

    inner = loss(theta, turned(train_.images, angle), train_.labels)
    grads = torch.autograd.grad(inner, list(theta.values()), create_graph=True)
    after = {n: p - 0.1 * g for (n, p), g in zip(theta.items(), grads, strict=True)}
    (expected,) = torch.autograd.grad(loss(after, *other), angle)
    options = method_options("exact", RotationSettings())
    assert options is not None
    step = bilevel_step(
        model,
        lambda view: cross_entropy(view(train_.images, turn=True), train_.labels),
        lambda view: cross_entropy(view(other.images), other.labels),
        torch.optim.SGD(model.network.parameters(), lr=0.1),
        torch.optim.SGD([model.angle], lr=0.1),
        base_step="before",
        **options,
    )
    assert float(step.hypergradient[0]) == pytest.approx(float(expected), rel=1e-9)


def test_accuracy_is_the_share_named_right(digits):
    class Always(TurningLeNet):
        def forward(self, images, turn=False):
            return torch.eye(10)[torch.full((len(images),), 3)]

    share = float((digits.validation.labels == 3).float().mean())
    assert accuracy(Always(), digits.validation) == pytest.approx(share)


def small(**changes: object) -> RotationSettings:
    values: dict[str, object] = {"batch_size": 16, "iterations": 3, **changes}
    return RotationSettings(**values)  # type: ignore[arg-type]


def figures(run: dict[str, object]) -> dict[str, object]:
    return {k: v for k, v in run.items() if k != "seconds_per_iteration"}


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_figures(method, digits):
    seen: list[tuple[int, float]] = []
    first = train(method, digits, small(), 0, lambda *a: seen.append(a))
    torch.manual_seed(99)
    assert figures(train(method, digits, small(), 0)) == figures(first)
    other = train(method, digits, small(), 1, lambda *a: seen.append(a))
    assert [done for done, _ in seen] == [1, 2, 3] * 2
    assert seen[0][1] != seen[3][1]
    assert (other["curve"] is None) == (method == "none")


def test_all_methods_start_alike_and_the_plain_one_turns_nothing(digits):
    losses: dict[str, list[float]] = {}
    for method in METHODS:
        mine = losses.setdefault(method, [])
        train(method, digits, small(), 0, lambda _, loss, to=mine: to.append(loss))
    for method in METHODS[1:]:
        # The angle is 0 at first, so only rounding sets the methods apart.
        assert losses[method][0] == pytest.approx(losses["none"][0], rel=1e-5)
        assert losses[method][2] != losses["none"][2]


# More candidates than the notebook's two: one seed has to suffice.
LEARNING = small(iterations=100, batch_size=32, meta_lr=0.02, candidates=8)


@pytest.fixture(scope="module")
def plain(digits: DigitSplits) -> dict[str, Any]:
    return train("none", digits, LEARNING, 1)


# The notebook's angles end between 22 and 37 degrees.
@pytest.mark.parametrize("method", METHODS[1:])
def test_the_angle_is_learned(method, digits, plain):
    run = train(method, digits, LEARNING, 1)
    assert 15 < run["angle"] < 45
    assert run["curve"][0] == (0, 0.0)
    assert run["curve"][-1] == (100, run["angle"])
    assert run["accuracy"] > plain["accuracy"] + 0.1
    assert plain["accuracy_back"] > run["accuracy_back"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 0}, "iterations to be a whole number of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size to be a whole number of at least 1"),
        ({"candidates": 1}, "candidates to be a whole number of at least 2, got 1"),
        ({"seed": -1}, "seed to be a whole number of at least 0"),
        ({"seeds": 0}, "seeds to be a whole number of at least 1"),
        ({"lr": -0.1}, "lr to be positive and finite, got -0.1"),
        ({"meta_lr": float("nan")}, "meta_lr to be positive and finite"),
        (
            {"methods": ("maml",)},
            "methods to be one of 'none', 'evograd', .* got 'maml",
        ),
        ({"methods": ()}, "to be one or more of none, evograd, .* got none"),
        ({"methods": ("none", "none")}, "each at most once, got none, none"),
    ],
)
def test_a_value_out_of_range_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        RotationSettings(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 1.5}, "seeds to be a whole number of at least 1, got 1.5"),
        ({"methods": "none"}, "sequence of names, got the text 'none'"),
    ],
)
def test_a_value_of_another_type_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        RotationSettings(**changes)
