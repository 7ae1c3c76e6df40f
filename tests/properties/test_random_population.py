"""EvoGrad by hand: with one weight a population has few outcomes, each known.

With one weight and signs as noise, all candidates are at theta +- sigma. The estimate
is then the difference quotient of the two, times the sample variance of the signs:
4 j (K - j) / (K (K - 1)) for j candidates above.
"""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import event, given
from judging import REFUSALS, examples
from torch import nn

from l2l_evograd import EvoGrad, EvoGradMetaOptimizer

pytestmark = pytest.mark.usefixtures("float64")
SIGMA, LR = 1e-3, 0.3


class OneWeight(nn.Module):
    def __init__(self, value, kind):
        super().__init__()
        self.weight, self.kind = nn.Parameter(torch.tensor(value)), kind

    def forward(self, x):
        h = torch.tanh(self.weight * x)
        if self.kind == "dropout":
            return nn.functional.dropout(h, 0.3)
        if self.kind == "detach":
            return h * (1 + h.detach())
        if self.kind == "columns":
            out = torch.zeros_like(h)
            out[::2], out[1::2] = h[::2] * 2, h[1::2].sin()
            return out
        return h


@examples(5)
@given(
    st.floats(-2, 2),
    st.sampled_from(["plain", "dropout", "detach", "columns"]),
    st.integers(2, 5),
    st.integers(0, 1000),
)
def test_the_estimate_is_one_of_those_that_a_population_can_give(
    value, kind, count, seed
):
    def gradient(estimator):
        torch.manual_seed(seed)
        model, lam = OneWeight(value, kind), torch.linspace(-1, 1, 6).requires_grad_()
        x, y = torch.randn(6), torch.randn(6)
        meta = EvoGradMetaOptimizer(
            model,
            LR,
            hyperparameters=lam,
            estimator=estimator,
            generator=torch.Generator().manual_seed(seed),
        )
        learner = meta.clone()
        learner.adapt((torch.sigmoid(lam) * (learner(x) - y).square()).mean())
        (learner(y) - x).square().mean().backward()
        return lam.grad

    exact = gradient("exact")
    try:
        found = gradient(EvoGrad(count, SIGMA, noise="rademacher"))
    except REFUSALS as error:
        assert kind == "columns" and str(error)
        event("refused")
        return
    factors = [
        4 * above * (count - above) / (count * (count - 1)) for above in range(count)
    ]
    errors = [float((found - factor * exact).abs().max()) for factor in factors]
    # The difference quotient over 2 sigma is off by sigma squared.
    assert min(errors) <= 1e-4 * float(exact.abs().max()) + 1e-9
