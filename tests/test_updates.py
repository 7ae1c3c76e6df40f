import pytest
import torch
from naive import algorithm_one

from l2l_evograd.estimators import EvoGrad, Exact
from l2l_evograd.losses import InnerLoss
from l2l_evograd.perturbations import Perturbations
from l2l_evograd.pullback import Wanted, connected
from l2l_evograd.updates import Evolution, Gradient, evolve

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
        def evaluate(theta, leaves):
            value = self.inner(theta, leaves[0])
            if shift:
                value = value + shift * (leaves[0] ** 2).sum()
            return scale * value

        return InnerLoss(evaluate, [self.lam])

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
    wanted = Wanted(hyperparameters=[0], curvature=curvature)
    step = evolve(recipe.loss(**kwargs), recipe.theta, noise, temperature, wanted)
    cotangents = step.pullback(recipe.cotangent(step.params))
    return step.params, cotangents.params, cotangents.inputs[0]


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
    step = evolve(recipe.loss(), recipe.theta, noise, 1e-2, Wanted(hyperparameters=[0]))
    v = recipe.cotangent(recipe.theta)
    got = step.pullback(v).inputs[0]
    rows = torch.stack(
        [torch.cat([t.reshape(-1) for t in noise.draw(k)]) for k in range(8)]
    )
    centred = (rows - rows.mean(0)) / estimator.sigma
    spread = centred.T @ centred / 8
    flat = spread @ torch.cat([t.reshape(-1) for t in v])
    directions = [flat[:12].view(4, 3), flat[12:]]
    exact = Gradient(estimator.sigma**2 / estimator.temperature, Exact())
    expected = exact.step(
        recipe.loss(), recipe.theta, recipe.theta, Wanted(hyperparameters=[0]), 0
    ).pullback(directions)
    # Relative error O(σ) = 1e-5 times constants of order ten.
    assert torch.allclose(got, expected.inputs[0], rtol=1e-3)


@pytest.mark.parametrize("estimator", [Exact()])
def test_gradient_step_and_its_pullback_equal_autograd(estimator):
    recipe = Recipe()
    theta = [t.detach().requires_grad_() for t in recipe.theta]
    value = recipe.inner(theta, recipe.lam)
    slopes = torch.autograd.grad(value, theta, create_graph=True)
    after = [t - 0.1 * g for t, g in zip(theta, slopes, strict=True)]
    expected = torch.autograd.grad(recipe.outer(after), [recipe.lam, *theta])
    step = Gradient(0.1, estimator).step(
        recipe.loss(),
        theta,
        [g.detach() for g in slopes],
        Wanted(hyperparameters=[0], curvature=True),
        0,
    )
    cotangents = step.pullback(recipe.cotangent(step.params))
    assert torch.allclose(step.params[0], after[0], rtol=1e-14)
    for got, want in zip(
        [cotangents.inputs[0], *cotangents.params], expected, strict=True
    ):
        assert torch.allclose(got, want, rtol=1e-10)


def test_nothing_wanted_leaves_the_cotangent_as_it_is():
    recipe = Recipe()
    step = Gradient(0.1, Exact()).step(
        recipe.loss(), recipe.theta, recipe.theta, Wanted(), 0
    )
    v = [torch.randn_like(t) for t in recipe.theta]
    cotangents = step.pullback(v)
    assert all(a is b for a, b in zip(cotangents.params, v, strict=True))
    assert cotangents.inputs == [None]
    assert not step.keeps_params


def test_weights_changed_in_place_before_backward_are_noticed():
    recipe = Recipe()
    theta = [t.clone() for t in recipe.theta]
    graph = [t.requires_grad_() for t in theta]
    update = Gradient(0.1, Exact())
    step = update.step(
        recipe.loss(), graph, recipe.theta, Wanted(hyperparameters=[0]), 0
    )
    after = connected(step, graph, [recipe.lam])
    with torch.no_grad():
        graph[0].add_(1.0)
    with pytest.raises(RuntimeError, match="were changed in place before backward"):
        recipe.outer(after).backward()


def test_evolution_uses_the_population_that_its_seed_gives():
    recipe = Recipe()
    update = Evolution(EvoGrad(4, 0.3, 0.2))
    wanted = Wanted(hyperparameters=[0])
    first = update.step(recipe.loss(), recipe.theta, [], wanted, 11)
    again = update.step(recipe.loss(), recipe.theta, [], wanted, 11)
    other = update.step(recipe.loss(), recipe.theta, [], wanted, 12)
    assert torch.equal(first.params[0], again.params[0])
    assert not torch.equal(first.params[0], other.params[0])
