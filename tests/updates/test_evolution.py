import pytest
import torch
from naive import algorithm_one

from l2l_evograd.estimators import EvoGrad
from l2l_evograd.estimators.exact import exact_mixed
from l2l_evograd.estimators.perturbations import Perturbations
from l2l_evograd.replay.inner_loss import InnerLoss, Unrepeatable
from l2l_evograd.replay.tensor import Recording
from l2l_evograd.updates.adjoint import Wanted
from l2l_evograd.updates.evolution import Evolution, evolve
from l2l_evograd.updates.inner_step import inner_step
from l2l_evograd.updates.situation import Situation

pytestmark = pytest.mark.usefixtures("float64")


class Recipe:
    """A small non-linear problem with weights in two tensors and λ of size 5."""

    def __init__(self, seed=0):
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(*shape, generator=generator)

        self.theta = [normal(4, 3), normal(3)]
        self.lam = normal(5).requires_grad_()
        self.x, self.y = normal(5, 4), normal(5)
        self.xv, self.yv = normal(6, 4), normal(6)

    def predict(self, theta, x):
        return torch.tanh(x @ theta[0] + theta[1]).sum(-1)

    def inner(self, theta, lam):
        errors = (self.predict(theta, self.x) - self.y) ** 2
        return (torch.sigmoid(lam) * errors).mean()

    def outer(self, theta):
        return ((self.predict(theta, self.xv) - self.yv) ** 2).mean()

    def loss(self, shift=0.0, scale=1.0):
        params = [t.detach().requires_grad_() for t in self.theta]
        with Recording():
            value = self.inner(params, self.lam)
            if shift:
                value = value + shift * (self.lam**2).sum()
            value = scale * value
        return InnerLoss(value, params, hold=False)

    def cotangent(self, params):
        leaves = [p.detach().requires_grad_() for p in params]
        return list(torch.autograd.grad(self.outer(leaves), leaves))


class Reordered:
    """Perturbations in another order."""

    def __init__(self, noise, order):
        self._noise, self._order, self.count = noise, order, noise.count

    def draw(self, k):
        return self._noise.draw(self._order[k])

    def project(self, direction):
        return self._noise.project(direction)[list(self._order)]


def hypergradient(recipe, noise, temperature, curvature=False, **kwargs):
    """Return the new weights, the cotangent of the old ones, and that of λ."""
    wanted = Wanted(hyperparameters=[0], curvature=curvature)
    moved, back = evolve(
        recipe.loss(**kwargs), recipe.theta, noise, temperature, wanted
    )
    params = [t + d for t, d in zip(recipe.theta, moved, strict=True)]
    v = recipe.cotangent(params)
    *theta_bar, lam_bar = back(v)
    if curvature:
        theta_bar = [a + b for a, b in zip(v, theta_bar, strict=True)]
    else:
        assert theta_bar == [None, None]
    return params, theta_bar, lam_bar


@pytest.mark.parametrize("curvature", [False, True])
@pytest.mark.parametrize("count", [2, 3, 10])
@pytest.mark.parametrize("family", ["rademacher", "gaussian"])
def test_evolution_equals_a_naive_transcription_of_algorithm_one(
    count, family, curvature
):
    recipe = Recipe()
    noise = Perturbations(recipe.theta, count, 0.3, 7, family)
    params, theta_bar, lam_bar = hypergradient(recipe, noise, 0.2, curvature)
    draws = [noise.draw(k) for k in range(count)]
    expected, expected_theta, merged = algorithm_one(
        recipe.inner, recipe.outer, recipe.theta, recipe.lam, draws, 0.2
    )
    assert torch.allclose(lam_bar, expected, rtol=1e-10, atol=1e-14)
    for got, want in zip(params, merged, strict=True):
        assert torch.allclose(got, want, rtol=1e-10, atol=1e-14)
    if curvature:
        for got, want in zip(theta_bar, expected_theta, strict=True):
            assert torch.allclose(got, want, rtol=1e-10, atol=1e-14)


def test_recomputing_candidates_gives_what_keeping_their_gradients_gives():
    recipe = Recipe()
    noise = Perturbations(recipe.theta, 6, 0.3, 7)  # 6 x 5 rows > 15 weights
    again = hypergradient(recipe, noise, 0.2)[2]
    few = Perturbations(recipe.theta, 2, 0.3, 7)  # 2 x 5 rows <= 15 weights
    assert torch.allclose(
        hypergradient(recipe, few, 0.2)[2],
        hypergradient(recipe, few, 0.2, curvature=True)[2],
        rtol=1e-12,
    )
    assert torch.allclose(
        again, hypergradient(recipe, noise, 0.2, curvature=True)[2], rtol=1e-12
    )


def test_one_candidate_gives_exactly_zero():
    recipe = Recipe()
    noise = Perturbations(recipe.theta, 1, 0.3, 7)
    params, _, lam_bar = hypergradient(recipe, noise, 0.2)
    assert torch.equal(lam_bar, torch.zeros(5))
    assert torch.equal(params[0], recipe.theta[0] + noise.draw(0)[0])


def test_a_constant_added_to_every_loss_changes_nothing():
    recipe = Recipe()
    noise = Perturbations(recipe.theta, 5, 0.3, 7)
    shifted = hypergradient(recipe, noise, 0.2, shift=3.0)[2]
    assert torch.allclose(shifted, hypergradient(recipe, noise, 0.2)[2], rtol=1e-10)


def test_the_order_of_the_candidates_changes_nothing():
    recipe = Recipe()
    noise = Perturbations(recipe.theta, 5, 0.3, 7)
    other = Reordered(noise, [3, 0, 4, 1, 2])
    assert torch.allclose(
        hypergradient(recipe, other, 0.2)[2],
        hypergradient(recipe, noise, 0.2)[2],
        rtol=1e-10,
    )


def test_scaling_losses_and_temperature_together_changes_nothing():
    recipe = Recipe()
    noise = Perturbations(recipe.theta, 5, 0.3, 7)
    scaled = hypergradient(recipe, noise, 0.2 * 4, scale=4.0)[2]
    assert torch.allclose(scaled, hypergradient(recipe, noise, 0.2)[2], rtol=1e-10)


def test_for_small_sigma_evolution_is_the_gradient_step_it_claims_to_stand_for():
    # For the noise drawn, the leading order is -(σ²/τ) (∂²ℓ/∂θ∂λ)ᵀ Ĉ v with
    # Ĉ = (1/K) Σ (ε_k − ε̄)(ε_k − ε̄)ᵀ / σ², up to a relative error O(σ).
    recipe = Recipe()
    estimator = EvoGrad(8, 1e-5, 1e-2, sampling="orthogonal")
    noise = estimator.perturbations(recipe.theta, 5)
    _, back = evolve(
        recipe.loss(), recipe.theta, noise, 1e-2, Wanted(hyperparameters=[0])
    )
    v = recipe.cotangent(recipe.theta)
    got = back(v)[-1]
    rows = torch.stack(
        [torch.cat([t.reshape(-1) for t in noise.draw(k)]) for k in range(8)]
    )
    centred = (rows - rows.mean(0)) / estimator.sigma
    spread = centred.T @ centred / 8
    flat = spread @ torch.cat([t.reshape(-1) for t in v])
    directions = [flat[:12].view(4, 3), flat[12:]]
    with torch.no_grad():  # as in backward()
        _, (mixed,) = exact_mixed(recipe.loss(), recipe.theta, directions, [0])
    expected = -(estimator.sigma**2) / estimator.temperature * mixed
    # Relative error O(σ) = 1e-5 times constants of order ten.
    assert torch.allclose(got, expected, rtol=1e-3)


def stepped(recipe, update, seed=11, inner=None, **settings):
    theta = [t.clone().requires_grad_() for t in recipe.theta]
    with Recording():
        value = (inner or recipe.inner)(theta, recipe.lam)
    now = Situation(
        value=value,
        params=theta,
        names=lambda: ["first", "second"],
        hyperparameters=[recipe.lam],
        check=True,
        seed=seed,
        **settings,
    )
    return theta, inner_step(update, now)


@pytest.mark.parametrize("first_order", [False, True])
def test_a_step_stands_on_the_graph_of_weights_and_hyperparameters(first_order):
    recipe = Recipe()
    estimator = EvoGrad(4, 0.3, 0.2)
    theta, result = stepped(recipe, Evolution(estimator), first_order=first_order)
    noise = estimator.perturbations(recipe.theta, 11)
    expected, expected_theta, merged = algorithm_one(
        recipe.inner,
        recipe.outer,
        recipe.theta,
        recipe.lam,
        [noise.draw(k) for k in range(4)],
        0.2,
    )
    assert result.reached == [True] and result.gradients == []
    lam_bar, *theta_bar = torch.autograd.grad(
        recipe.outer(result.params), [recipe.lam, *theta]
    )
    if first_order:
        expected_theta = recipe.cotangent(result.params)
    found = [*result.params, lam_bar, *theta_bar]
    wanted = [*merged, expected, *expected_theta]
    for got, want in zip(found, wanted, strict=True):
        assert torch.allclose(got, want, rtol=1e-10, atol=1e-14)


def test_detached_parts_of_a_loss_are_computed_anew_for_each_candidate():
    recipe = Recipe()
    estimator = EvoGrad(4, 0.3, 0.2)

    def inner(theta, lam):
        errors = (recipe.predict(theta, recipe.x) - recipe.y) ** 2
        return (torch.sigmoid(lam) * errors.detach().sqrt() * errors).mean()

    _, result = stepped(recipe, Evolution(estimator), inner=inner)
    noise = estimator.perturbations(recipe.theta, 11)
    draws = [noise.draw(k) for k in range(4)]
    expected, _, merged = algorithm_one(
        inner, recipe.outer, recipe.theta, recipe.lam, draws, 0.2
    )
    for got, want in zip(result.params, merged, strict=True):
        assert torch.allclose(got, want, rtol=1e-10)
    (found,) = torch.autograd.grad(recipe.outer(result.params), recipe.lam)
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-14)


def test_the_weights_may_be_moved_before_the_population_is_drawn():
    recipe = Recipe()
    seen = []

    def beforehand(value, params):
        seen.append(float(value.detach()))
        with torch.no_grad():
            for p in params:
                p += 1.0

    estimator = EvoGrad(3, 0.3, 0.2)
    theta, result = stepped(recipe, Evolution(estimator), beforehand=beforehand)
    moved = [t + 1.0 for t in recipe.theta]
    draws = [estimator.perturbations(moved, 11).draw(k) for k in range(3)]
    expected, _, merged = algorithm_one(
        recipe.inner, recipe.outer, moved, recipe.lam, draws, 0.2
    )
    assert seen == [float(recipe.inner(recipe.theta, recipe.lam).detach())]
    for got, want in zip(result.params, merged, strict=True):
        assert torch.allclose(got, want, rtol=1e-10)
    (found,) = torch.autograd.grad(recipe.outer(result.params), recipe.lam)
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-14)


def test_evolution_uses_the_population_that_its_seed_gives():
    recipe = Recipe()
    update = Evolution(EvoGrad(4, 0.3, 0.2))
    first, again, other = (
        stepped(recipe, update, seed)[1].params[0] for seed in (11, 11, 12)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_what_cannot_be_repeated_is_refused():
    recipe = Recipe()

    def inner(theta, lam):
        hidden = theta[0] * 1
        hidden.detach().numpy()[:] = 2  # which nobody sees
        return recipe.inner([hidden, theta[1]], lam)

    with pytest.raises(Unrepeatable, match="its value is"):
        stepped(recipe, Evolution(), inner=inner)
