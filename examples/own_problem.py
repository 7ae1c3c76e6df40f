"""Your own bilevel problem: one regularisation strength for each feature.

Shows:   hypergradient() on a dict of weights, without learn2learn. The problem is
         ridge regression, for which the exact hypergradient has a closed form.
Prints:  cosine of single estimates to the exact hypergradient, cosine and norm ratio of
         their mean; then the loss on test data with fixed and with learned strengths.
Time:    about ten seconds on one core.

    python examples/own_problem.py --draws 200
"""

import argparse
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from l2l_evograd import EvoGrad, Exact, Guided, hypergradient

FEATURES, USEFUL, LR = 40, 5, 0.05
Weights, Row = dict[str, Tensor], tuple[float, float, float]

generator = torch.Generator().manual_seed(0)
data = torch.randn(1130, FEATURES, generator=generator, dtype=torch.float64)
noise = torch.randn(1130, generator=generator, dtype=torch.float64)
X, X_VAL, X_TEST = data.split([30, 100, 1000])
Y, Y_VAL, Y_TEST = (data[:, :USEFUL].sum(dim=1) + noise).split([30, 100, 1000])


def inner_loss(params: Weights, strength: Tensor) -> Tensor:
    """ℓ(θ, λ) = ½ mean (Xθ − y)² + ½ Σ_j exp(λ_j) θ_j²."""
    theta = params["theta"]
    penalty = (strength.exp() * theta.square()).sum()
    return (X @ theta - Y).square().mean() / 2 + penalty / 2


def outer_loss(params: Weights, strength: Tensor) -> Tensor:
    """L(θ) = ½ mean (X_val θ − y_val)²."""
    return (X_VAL @ params["theta"] - Y_VAL).square().mean() / 2


def closed_form(theta: Tensor, strength: Tensor, lr: float) -> Tensor:
    """dL/dλ = −η exp(λ) ∘ θ ∘ ∇L(θ'), with θ' = θ − η ∇_θ ℓ(θ, λ)."""
    after = theta - lr * (X.T @ (X @ theta - Y) / len(Y) + strength.exp() * theta)
    slope = X_VAL.T @ (X_VAL @ after - Y_VAL) / len(Y_VAL)
    return -lr * strength.exp() * theta * slope


def estimates(draws: int) -> dict[str, Row]:
    """Return mean cosine, cosine of the mean and norm ratio of the mean."""
    theta = {"theta": X.T @ Y / len(Y)}
    strength, table = torch.full_like(theta["theta"], -1.0), {}
    for name, update, estimator in (
        ("Exact", "gradient", Exact()),
        ("Guided", "gradient", Guided()),
        ("EvoGrad, K = 2", "gradient", EvoGrad()),
        ("EvoGrad, K = 64", "gradient", EvoGrad(n_model_candidates=64)),
        ("Algorithm 1, K = 2", "evolution", EvoGrad()),
    ):
        # Algorithm 1 has no learning rate, but acts like a step with this one.
        lr = estimator.learning_rate if update == "evolution" else LR
        truth = closed_form(theta["theta"], strength, lr)
        estimate = partial(hypergradient, lr=lr, update=update, estimator=estimator)
        draw = partial(estimate, generator=torch.Generator().manual_seed(1))
        count = draws if isinstance(estimator, EvoGrad) else 1
        results = [draw(inner_loss, outer_loss, theta, strength) for _ in range(count)]
        found = torch.stack([result.gradients for result in results])
        single, mean = cosine_similarity(found, truth[None]).mean(), found.mean(dim=0)
        of_mean = cosine_similarity(mean, truth, dim=0)
        table[name] = (float(single), float(of_mean), float(mean.norm() / truth.norm()))
    return table


def learn(steps: int, hyper_lr: float) -> float:
    """Train θ and λ together, and return the final loss on test data."""
    weights = {"theta": torch.zeros(FEATURES, dtype=torch.float64)}
    strength = torch.full_like(weights["theta"], -3.0)
    for _ in range(steps):
        result = hypergradient(inner_loss, outer_loss, weights, strength, lr=LR)
        weights = result.params
        strength = strength - hyper_lr * result.gradients
    return float((X_TEST @ weights["theta"] - Y_TEST).square().mean() / 2)


def main(draws: int = 200, steps: int = 1000) -> tuple[dict[str, Row], float, float]:
    """Compute the figures, print and return them."""
    table = estimates(draws)
    print(f"{'':20}{'cosine':>10}{'of mean':>10}{'norm ratio':>12}")
    for name, row in table.items():
        print(f"{name:20}{row[0]:10.4f}{row[1]:10.4f}{row[2]:12.4f}")
    fixed, learned = learn(steps, 0.0), learn(steps, 10.0)
    print(f"test loss, strengths fixed {fixed:.4f}, learned {learned:.4f}")
    return table, fixed, learned


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=200)
    main(parser.parse_args().draws)
