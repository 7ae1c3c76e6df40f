"""The same numbers by the formulas of others: the authors' code, and a quadratic."""

import pytest
import torch
from training_runs import losses, outer, weights

from l2l_evograd.unroll import forward_mode, reversible_sgd, unrolled_sgd

pytestmark = pytest.mark.usefixtures("float64")

T = 60


def by_fds(steps, lr, momentum, decay):
    """The A, B, C form of the authors' code: Z_t = A Z + B, one column per window."""
    theta = torch.cat([w.flatten() for w in weights().values()])
    shapes = {name: w.shape for name, w in weights().items()}

    def parts(vector):
        sizes = [shape.numel() for shape in shapes.values()]
        found = zip(shapes.items(), vector.split(sizes), strict=True)
        return {name: part.reshape(shape) for (name, shape), part in found}

    v = torch.zeros_like(theta)
    columns = {"lr": lr, "momentum": momentum, "weight_decay": decay}
    z = {k: torch.zeros(len(theta), len(x)) for k, x in columns.items()}
    c = {k: torch.zeros(len(theta), len(x)) for k, x in columns.items()}
    for t, loss in enumerate(losses(steps)):
        at = {k: t * len(x) // steps for k, x in columns.items()}
        a, b, x = (float(columns[k][at[k]]) for k in columns)

        def value(vector, loss=loss):
            return loss(parts(vector), None)

        g = torch.autograd.functional.jacobian(value, theta)
        h = torch.autograd.functional.hessian(value, theta)
        own = {
            "lr": -(b * v + g + x * theta),
            "momentum": -a * v,
            "weight_decay": -a * theta,
        }
        for k in columns:
            active = torch.zeros(len(columns[k]))
            active[at[k]] = 1
            step = -a * b * c[k] + torch.outer(own[k], active)
            c[k] = b * c[k] + h @ z[k] + x * z[k]
            if k != "lr":
                c[k] += torch.outer(-own[k] / a, active)
            z[k] = (1 - a * x) * z[k] - a * h @ z[k] + step
        v = b * v + g + x * theta
        theta = theta - a * v
    slope = torch.autograd.functional.jacobian(lambda x: outer(parts(x), None), theta)
    return {k: slope @ tangent for k, tangent in z.items()}


def test_the_form_of_the_authors_code_gives_the_same():
    given = {
        "lr": torch.tensor([0.3, 0.5, 0.2, 0.1, 0.3]),
        "momentum": torch.tensor([128.0, 230.0, 200.0]) / 256,
        "weight_decay": torch.tensor([0.01, 0.002]),
    }
    expected = by_fds(T, *given.values())
    for mode, bound in ((forward_mode, 1e-11), (reversible_sgd, 1e-9)):
        got = mode(losses(T), outer, weights(), steps=T, **given).schedule
        for name, value in expected.items():
            assert float((got[name] - value).norm() / value.norm()) < bound


def test_a_quadratic_by_its_formulas():
    a, rates = 1.7, torch.tensor([0.1, 0.3, 0.2, 0.25])
    theta = torch.tensor([0.8])

    def bowl(params, lam):
        return 0.5 * a * params["x"].square().sum()

    def last(params, lam):
        return 0.5 * params["x"].square().sum()

    plain = theta * (1 - a * rates).prod()
    expected = -a * plain.square() / (1 - a * rates)
    for mode in (unrolled_sgd, forward_mode):
        got = mode(bowl, last, {"x": theta}, lr=rates, steps=4)
        assert torch.allclose(got.schedule["lr"], expected, rtol=1e-13)
    betas, decays = torch.tensor([0.5, 0.75]), torch.tensor([0.1])
    expected = by_matrices(a, theta, rates, betas, decays)
    given = {"lr": rates, "momentum": betas, "weight_decay": decays}
    for mode, bound in (
        (unrolled_sgd, 1e-13),
        (forward_mode, 1e-13),
        (reversible_sgd, 1e-10),
    ):
        got = mode(bowl, last, {"x": theta}, steps=4, **given)
        for name, values in expected.items():
            assert torch.allclose(got.schedule[name], values, rtol=bound)


def by_matrices(a, theta, rates, betas, decays):
    """dL/dh = θ_T · [M_T … (∂M_t/∂h) … M_1 s_0] for s = (θ, v), summed over windows."""
    steps = len(rates)

    def at(t):
        return rates[t], betas[t * len(betas) // steps], decays[0]

    def matrix(t):
        r, b, x = at(t)
        return torch.tensor([[1 - r * (a + x), -r * b], [a + x, b]])

    def slope(kind, t):
        r, b, x = at(t)
        if kind == "lr":
            return torch.tensor([[-(a + x), -b], [0.0, 0.0]])
        if kind == "momentum":
            return torch.tensor([[0.0, -r], [0.0, 1.0]])
        return torch.tensor([[-r, 0.0], [1.0, 0.0]])

    states = [torch.tensor([float(theta), 0.0])]
    for t in range(steps):
        states.append(matrix(t) @ states[-1])
    found = {}
    counts = {"lr": len(rates), "momentum": len(betas), "weight_decay": 1}
    for kind, count in counts.items():
        found[kind] = torch.zeros(count)
        for t in range(steps):
            change = slope(kind, t) @ states[t]
            for later in range(t + 1, steps):
                change = matrix(later) @ change
            found[kind][t * count // steps] += states[-1][0] * change[0]
    return found
