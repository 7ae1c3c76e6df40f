"""One iteration of every method, held against the same iteration written out."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from l2l_evograd.estimators import EvoGrad, Guided
from l2l_evograd.experiments.noisy_labels.methods import METHODS
from l2l_evograd.experiments.noisy_labels.module import NoisyLabelModule
from l2l_evograd.seeds import derive_seed, draw_seed

LR, META_LR, MOMENTUM, DECAY = 0.1, 1.0, 0.9, 5e-4
BATCH = 12

pytestmark = pytest.mark.usefixtures("float64")


def samples(count: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 5, generator=generator)
    labels = torch.randint(3, (count,), generator=generator)
    return TensorDataset(3 * inputs, labels)


def fresh(method, **changes) -> NoisyLabelModule:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    options = {"method": method, "batch_size": BATCH, "lr": LR, "meta_lr": META_LR}
    return NoisyLabelModule(
        model, samples(BATCH, 1), samples(BATCH, 2), **{**options, **changes}
    )


def stepped(module: NoisyLabelModule, steps: int = 1) -> NoisyLabelModule:
    """Make iterations without a trainer: the mathematics alone."""
    optimizers = list(module.configure_optimizers())
    module.plain_optimizers = lambda: optimizers  # type: ignore[method-assign]
    module.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign]
    for iteration in range(steps):
        module._batch = module._batches.train.batch(iteration)
        module._clean = module._batches.meta.batch(iteration)
        module.iterate(iteration)
    return module


class Naive:
    """The same iteration in the plainest words: functions of lists of tensors."""

    def __init__(self, module: NoisyLabelModule):
        self.theta = [p.detach().clone() for p in module.model.parameters()]
        self.lam = [p.detach().clone() for p in module.weight_net.parameters()]
        self.x, self.y, _ = module._batches.train.batch(0)
        self.x_meta, self.y_meta, _ = module._batches.meta.batch(0)

    @staticmethod
    def scores(theta, x):
        return torch.tanh(x @ theta[0].T + theta[1]) @ theta[2].T + theta[3]

    @staticmethod
    def weight(lam, losses):
        hidden = torch.relu(losses[:, None] @ lam[0].T + lam[1])
        return torch.sigmoid(hidden @ lam[2].T + lam[3])[:, 0]

    def inner(self, theta, lam, seen=None):
        """ℓ(θ, λ); ``seen``: the losses that the weights are a function of."""
        losses = cross_entropy(self.scores(theta, self.x), self.y, reduction="none")
        w = self.weight(lam, losses.detach() if seen is None else seen)
        return (w * losses).sum() / w.sum()

    def losses(self, theta):
        scores = self.scores(theta, self.x)
        return cross_entropy(scores, self.y, reduction="none").detach()

    def outer(self, theta):
        return cross_entropy(self.scores(theta, self.x_meta), self.y_meta)

    def exact(self):
        """∂L(θ − η ∇ℓ(θ, λ))/∂λ by differentiating through the step."""
        theta = [t.clone().requires_grad_() for t in self.theta]
        lam = [t.clone().requires_grad_() for t in self.lam]
        slopes = torch.autograd.grad(self.inner(theta, lam), theta, create_graph=True)
        after = [t - LR * s for t, s in zip(theta, slopes, strict=True)]
        return torch.autograd.grad(self.outer(after), lam)

    def algorithm_one(self, noise, temperature):
        """The paper's Algorithm 1, line by line."""
        lam = [t.clone().requires_grad_() for t in self.lam]
        candidates = [
            [t + e for t, e in zip(self.theta, eps, strict=True)] for eps in noise
        ]
        losses = torch.stack([self.inner(c, lam) for c in candidates])
        w = torch.softmax(-losses / temperature, dim=0)
        merged = [
            sum(a * c for a, c in zip(w, column, strict=True))
            for column in zip(*candidates, strict=True)
        ]
        return torch.autograd.grad(self.outer(merged), lam)

    def outer_slope(self):
        """v = ∂L/∂θ' at θ' = θ − η ∇ℓ(θ, λ)."""
        theta = [t.clone().requires_grad_() for t in self.theta]
        slopes = torch.autograd.grad(self.inner(theta, self.lam), theta)
        after = [
            (t - LR * s).detach().requires_grad_()
            for t, s in zip(theta, slopes, strict=True)
        ]
        return torch.autograd.grad(self.outer(after), after)

    def lam_slope(self, theta):
        """∂ℓ(θ, λ)/∂λ, the weights a function of the losses at the present θ."""
        lam = [t.clone().requires_grad_() for t in self.lam]
        value = self.inner(theta, lam, self.losses(self.theta))
        return torch.autograd.grad(value, lam)

    def guided(self, h, central):
        v = self.outer_slope()
        norm = torch.sqrt(sum((part * part).sum() for part in v))
        moved = [
            [t + sign * h * part / norm for t, part in zip(self.theta, v, strict=True)]
            for sign in (1, -1 if central else 0)
        ]
        high, low = (self.lam_slope(theta) for theta in moved)
        span = 2 * h if central else h
        return [-LR * norm * (a - b) / span for a, b in zip(high, low, strict=True)]

    def population(self, noise, sigma):
        v = self.outer_slope()
        scores = [
            sum((a * e).sum() for a, e in zip(v, eps, strict=True)) for eps in noise
        ]
        mean = sum(scores) / len(scores)
        total = [torch.zeros_like(t) for t in self.lam]
        for score, eps in zip(scores, noise, strict=True):
            theta = [t + e for t, e in zip(self.theta, eps, strict=True)]
            for place, slope in zip(total, self.lam_slope(theta), strict=True):
                place -= LR * (score - mean) * slope / ((len(noise) - 1) * sigma**2)
        return total

    def updated(self, hypergradient):
        """θ and λ after one step of SGD each: momentum starts as the gradient."""
        lam = [
            t - META_LR * (1 + MOMENTUM) * (g + DECAY * t)
            for t, g in zip(self.lam, hypergradient, strict=True)
        ]
        theta = [t.clone().requires_grad_() for t in self.theta]
        slopes = torch.autograd.grad(self.inner(theta, lam), theta)
        after = [
            (t - LR * (1 + MOMENTUM) * (g + DECAY * t)).detach()
            for t, g in zip(theta, slopes, strict=True)
        ]
        return after, lam


def noise_of(module: NoisyLabelModule, estimator: EvoGrad):
    """The perturbations that the module draws in its first iteration."""
    generator = torch.Generator().manual_seed(derive_seed(0, "perturbations", 0))
    params = [p.detach() for p in module.model.parameters()]
    drawn = estimator.perturbations(params, draw_seed(generator))
    return [drawn.draw(k) for k in range(drawn.count)]


def expected(name: str, module: NoisyLabelModule):
    naive = Naive(module)
    estimator = module.method.estimator
    if name == "exact":
        gradient = naive.exact()
    elif name == "guided":
        assert isinstance(estimator, Guided)
        gradient = naive.guided(estimator.h, estimator.scheme == "central")
    else:
        assert isinstance(estimator, EvoGrad)
        noise = noise_of(module, estimator)
        if name == "evograd-paper":
            gradient = naive.algorithm_one(noise, estimator.temperature)
        else:
            gradient = naive.population(noise, estimator.sigma)
    return gradient, naive.updated(gradient)


def gap(ours, theirs) -> float:
    pairs = zip(ours, theirs, strict=True)
    return max(float((a.detach() - b.detach()).abs().max()) for a, b in pairs)


LEARNED = [name for name, method in METHODS.items() if method.learned]


@pytest.mark.parametrize("name", LEARNED)
def test_an_iteration_is_the_one_written_out(name: str):
    module = fresh(name)
    gradient, (theta, lam) = expected(name, copy.deepcopy(module))
    stepped(module)
    size = max(float(g.abs().max()) for g in gradient)
    assert size > 1e-10
    found = [p.grad for p in module.weight_net.parameters()]
    assert gap(found, gradient) < 1e-7 * size
    norm = sum(float(g.square().sum()) for g in gradient) ** 0.5
    assert module.hypergradients[0] == pytest.approx(norm, rel=1e-7)
    assert gap(module.weight_net.parameters(), lam) < 1e-9
    assert gap(module.model.parameters(), theta) < 1e-9


def test_guided_is_exact_up_to_the_error_of_a_finite_difference():
    exact, guided = (expected(name, fresh(name))[0] for name in ("exact", "guided"))
    size = max(float(g.abs().max()) for g in exact)
    assert 0 < gap(guided, exact) < 0.02 * size


def test_a_step_calls_the_model_once_for_each_of_its_losses():
    module = fresh("guided")
    calls = []
    module.model[0].register_forward_hook(lambda *_: calls.append(1))
    stepped(module)
    # All other passes are replayed, and the loss at the new λ shares the first pass.
    assert len(calls) == 2


def test_the_population_of_the_paper_stands_for_a_tiny_learning_rate():
    """Mean over 2000 draws, against η = σ²(K−1)/(Kτ), fixed beforehand: 4 errors."""
    estimator = METHODS["evograd-paper"].estimator
    assert isinstance(estimator, EvoGrad)
    module = fresh("evograd-paper")
    naive = Naive(module)
    params = [p.detach() for p in module.model.parameters()]
    draws = []
    for seed in range(2000):
        drawn = estimator.perturbations(params, seed)
        noise = [drawn.draw(k) for k in range(drawn.count)]
        gradient = naive.algorithm_one(noise, estimator.temperature)
        draws.append(torch.cat([g.flatten() for g in gradient]))
    found = torch.stack(draws)
    exact = torch.cat([g.flatten() for g in small_step(naive, estimator)])
    along = (found @ exact) / exact.square().sum()
    error = float(along.std() / len(along) ** 0.5)
    assert 0 < error < 0.25
    assert abs(float(along.mean()) - 1) < 4 * error


def small_step(naive: Naive, estimator: EvoGrad):
    """Return what Algorithm 1 tends to: −η (d/dθ ∂ℓ/∂λ)·v, by a central difference.

    Comparing whole losses it sees the weight net's inputs move with θ, which automatic
    differentiation through one step, with these detached, does not: in this problem its
    answer is 1.8 times as long.
    """
    theta = [t.clone().requires_grad_() for t in naive.theta]
    slopes = torch.autograd.grad(naive.inner(theta, naive.lam), theta)
    rate, step = estimator.learning_rate, 1e-5
    after = [
        (t - rate * s).detach().requires_grad_()
        for t, s in zip(theta, slopes, strict=True)
    ]
    direction = torch.autograd.grad(naive.outer(after), after)

    def at(distance: float):
        lam = [t.clone().requires_grad_() for t in naive.lam]
        pairs = zip(naive.theta, direction, strict=True)
        moved = [t + distance * v for t, v in pairs]
        return torch.autograd.grad(naive.inner(moved, lam), lam)

    pairs = zip(at(step), at(-step), strict=True)
    return [-rate * (high - low) / (2 * step) for high, low in pairs]


@pytest.mark.parametrize("name", ["baseline", "frozen"])
def test_what_is_not_learned_does_not_move(name: str):
    module = fresh(name)
    before = [p.clone() for p in module.weight_net.parameters()]
    stepped(module, 5)
    assert gap(before, list(module.weight_net.parameters())) == 0.0


def test_a_constant_weight_net_makes_the_run_plain_training():
    constant, plain = fresh("frozen"), fresh("baseline")
    with torch.no_grad():
        constant.weight_net.second.weight.zero_()
    stepped(constant, 5), stepped(plain, 5)
    assert gap(constant.model.parameters(), plain.model.parameters()) < 1e-12
    assert gap(constant.model.parameters(), fresh("baseline").model.parameters()) > 0.01


def test_weights_that_differ_make_another_run():
    weighted, plain = stepped(fresh("frozen"), 5), stepped(fresh("baseline"), 5)
    assert gap(weighted.model.parameters(), plain.model.parameters()) > 1e-4


def test_the_learning_rate_falls_at_two_thirds_and_five_sixths():
    module = fresh("baseline", iterations=12)
    optimizers = list(module.configure_optimizers())
    module.plain_optimizers = lambda: optimizers
    module.manual_backward = lambda loss: loss.backward()
    rates = []
    for iteration in range(12):
        module._batch = module._batches.train.batch(iteration)
        module._clean = module._batches.meta.batch(iteration)
        module.iterate(iteration)
        rates.append(optimizers[0].param_groups[0]["lr"])
    assert rates == pytest.approx([0.1] * 8 + [0.01] * 2 + [0.001] * 2)
