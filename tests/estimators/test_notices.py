"""What is not sound in an estimate is said, once, with what to change."""

import copy
import itertools
import math
import pickle
import warnings

import pytest
import torch
from estimated import by_hand, estimate, problem
from torch import nn

from l2l_evograd import EvoGrad, Guided, hypergradient
from l2l_evograd.checks import InputError, NotFiniteError
from l2l_evograd.estimators.judgement import displacement, saturation
from l2l_evograd.estimators.notices import Notices

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
STEPS = [1e-300, 1e-30, 1e-12, 1e-3, 0.1, 1e20, 1e300]


def what_happens(parts, estimator, **options):
    """The estimate, or None and the errors and warnings in its place."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = estimate(parts, estimator, **options)
        except InputError as error:
            return None, [str(error)]
    return found, [str(warning.message) for warning in caught]


def seeded():
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [-36, 0, 36])
def test_no_estimate_is_silently_0_or_not_a_number(dtype, scale):
    inner, outer, theta, lam = problem(dtype)
    parts = inner, lambda p, x: 10.0**scale * outer(p, x), theta, lam
    cases = [(Guided(h=h), "gradient") for h in STEPS]
    for sigma, tau in itertools.product([1e-12, 1e-3, 0.1, 1e20], [1e-3, 5.0, 1e300]):
        for update in ("gradient", "evolution"):
            cases.append((EvoGrad(4, sigma=sigma, temperature=tau), update))
    for estimator, update in cases:
        options = {"generator": seeded()} if estimator.random else {}
        found, said = what_happens(parts, estimator, update=update, **options)
        if not said:
            assert bool(found.isfinite().all()), estimator
            assert float(found.abs().max()) > 0, estimator


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("h", STEPS)
def test_a_guided_estimate_is_right_or_something_is_said(dtype, h):
    found, said = what_happens(problem(dtype), Guided(h=h))
    exact = by_hand(problem(torch.float64), 0.1, 1)
    if not said:
        # Of a step as long as 1e20, only the formula is right.
        assert h <= 0.1
        assert float((found.double() - exact).norm() / exact.norm()) <= 0.2


@pytest.mark.parametrize("update", ["gradient", "evolution"])
@pytest.mark.parametrize("sigma", [1e-12, 1e-30])
def test_a_lost_perturbation_is_an_error_that_names_sigma(update, sigma):
    with pytest.raises(InputError, match=rf"sigma={sigma:g} it is lost .* raise sigma"):
        estimate(problem(torch.float32), EvoGrad(sigma=sigma), update=update)


def test_a_lost_step_is_an_error_that_names_h():
    with pytest.raises(InputError, match=r"h=1e-12 it is lost in rounding.* raise h"):
        estimate(problem(torch.float32), Guided(h=1e-12))


def test_overflow_is_an_error_that_names_sigma_or_h():
    parts = problem(torch.float32)
    with pytest.raises(NotFiniteError, match=r"perturbed weights .* sigma=1e\+25"):
        estimate(parts, EvoGrad(sigma=1e25))
    with pytest.raises(InputError, match=r"overflow of float32 with sigma=1e\+39"):
        estimate(parts, EvoGrad(sigma=1e39))
    with pytest.raises(InputError, match=r"overflow of float32 with h=1e\+300"):
        estimate(parts, Guided(h=1e300))


def test_a_perturbation_that_is_mostly_lost_is_said_once():
    estimator = EvoGrad(4, sigma=2e-3)
    parts = problem(torch.bfloat16)
    with pytest.warns(UserWarning, match="more than half of the perturbation") as said:
        for _ in range(3):
            estimate(parts, estimator, generator=seeded())
    assert len([w for w in said if "more than half" in str(w.message)]) == 1


def test_a_saturated_softmax_is_said_once_with_what_to_change():
    estimator = EvoGrad(2, sigma=1.0, temperature=1e-4)
    with pytest.warns(UserWarning, match="effective number of candidates") as said:
        for _ in range(3):
            estimate(problem(), estimator, update="evolution", generator=seeded())
    assert len(said) == 1
    assert "raise temperature, or lower sigma" in str(said[0].message)


def test_a_result_out_of_range_is_said():
    inner, outer, theta, lam = problem(torch.float32)
    tiny = inner, lambda p, x: 1e-39 * outer(p, x), theta, lam
    with pytest.warns(UserWarning, match="underflows"):
        estimate(tiny, Guided())
    large = (
        lambda p, x: inner(p, 1e7 * x),
        lambda p, x: 1e34 * outer(p, x),
        theta,
        lam / 1e7,
    )
    with (
        pytest.warns(UserWarning, match="overflows"),
        pytest.raises(NotFiniteError, match="expected the hypergradient to be finite"),
    ):
        estimate(large, Guided())


def test_a_gradient_that_half_precision_rounds_to_0_is_said():
    inner, outer, theta, lam = problem(torch.float16)
    parts = inner, lambda p, x: 1e-7 * outer(p, x), theta, lam
    for estimator in (Guided(h=0.5), EvoGrad(4, sigma=0.1)):
        with pytest.warns(UserWarning, match="is exactly 0 in float16"):
            estimate(parts, estimator)


def test_a_difference_that_autocast_rounds_away_is_said():
    model = nn.Linear(4, 1)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.fill_(1.0)
    x, lam = torch.ones(3, 4), torch.ones(3, requires_grad=True)

    def inner(view):
        with torch.autocast("cpu", torch.bfloat16):
            return (lam * view(x).squeeze(1).square()).sum()

    estimator = Guided(h=1e-3)

    def once():
        outer = lambda view: view(x).sum()  # noqa: E731
        hypergradient(inner, outer, model, lam, lr=1e-3, estimator=estimator)

    once(), once()  # which may happen where nothing is wrong
    with pytest.warns(UserWarning, match="do not differ between the ends"):
        once()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("update", ["gradient", "evolution"])
def test_a_candidate_whose_loss_is_not_finite_is_an_error(bad, update):
    inner, outer, theta, lam = problem()
    start = theta["w1"].clone()

    def cliff(params, lam):
        gap = (params["w1"] - start).abs().sum()
        steep = (1e-30 - gap).sqrt() if math.isnan(bad) else (gap * 1e6).exp()
        return inner(params, lam) + steep

    with pytest.raises(NotFiniteError, match="at the perturbed weights"):
        estimate((cliff, outer, theta, lam), EvoGrad(4), update=update, check="never")


@pytest.mark.parametrize("estimator", [Guided(), EvoGrad(4), EvoGrad(4, sigma=0.1)])
def test_a_cotangent_that_is_not_finite_gives_no_number(estimator):
    inner, _, theta, lam = problem()

    def kinked(params, lam):
        return (0 * params["w1"]).square().sum().sqrt()  # finite, its gradient is NaN

    for update in ("gradient", "evolution") if estimator.random else ("gradient",):
        found, _ = what_happens((inner, kinked, theta, lam), estimator, update=update)
        assert found is None or not bool(found.isfinite().any())


def test_the_effective_number_of_candidates():
    assert saturation([1.0, 1.0, 1.0], 0.1) == pytest.approx(3)
    shares = [0.5, 0.25, 0.25]
    losses = [-math.log(share) for share in shares]
    assert saturation(losses, 1.0) == pytest.approx(1 / sum(s * s for s in shares))
    assert saturation([0.0, 1e10], 1e-300) == 1


def test_how_far_weights_move_and_by_how_much_they_miss():
    params = [torch.tensor([1.0, 1024.0])]
    step = [torch.tensor([3e-5, 4e-5])]
    moved = [params[0] + step[0]]
    found = displacement(moved, params, step, 5e-5)
    assert [float(x) for x in found] == pytest.approx([0.6, 0.8, 1024 / 5e-5], rel=1e-2)


def test_copies_of_an_estimator_say_things_once_and_other_processes_anew():
    notices = Notices()
    with pytest.warns(UserWarning, match="hello"):
        notices.say("a", "hello")
    copy.deepcopy(notices).say("a", "hello")
    with pytest.warns(UserWarning, match="hello"):
        pickle.loads(pickle.dumps(notices)).say("a", "hello")
    estimator = EvoGrad(4)
    assert (
        copy.deepcopy(estimator) == pickle.loads(pickle.dumps(estimator)) == estimator
    )
    assert repr(Guided()) == "Guided(h=0.01, scheme='central')"
    assert hash(Guided()) == hash(Guided())


def test_the_first_ten_calls_and_every_tenth_are_looked_at():
    notices = Notices()
    looked = [n for n in range(1, 41) if notices.due()]
    assert looked == [*range(1, 11), 20, 30, 40]
