import pytest
import torch
from estimated import problem

from l2l_evograd import EvoGrad, Exact, Guided, hypergradient
from l2l_evograd.estimators import resolve_estimator
from l2l_evograd.estimators.base import add_scaled, dot


def test_names_mean_the_estimators_with_their_defaults():
    assert resolve_estimator("guided", "gradient") == Guided()
    assert resolve_estimator("exact", "gradient") == Exact()
    assert resolve_estimator("evograd", "evolution") == EvoGrad(2, 1e-3, 0.05)
    assert resolve_estimator(None, "gradient") == Guided()
    assert resolve_estimator(None, "evolution") == EvoGrad()


def test_unknown_estimators_and_updates_are_refused():
    with pytest.raises(ValueError, match="estimator to be one of .* got 'adam'"):
        resolve_estimator("adam", "gradient")
    with pytest.raises(TypeError, match=r"EvoGrad\(...\), Guided\(...\), Exact\(\)"):
        resolve_estimator(3, "gradient")
    with pytest.raises(ValueError, match="update to be one of 'gradient', 'evolution'"):
        resolve_estimator(None, "sgd")
    with pytest.raises(ValueError, match="takes a population: .* got Guided"):
        resolve_estimator("guided", "evolution")


def test_a_cotangent_of_zero_gives_a_hypergradient_of_zero():
    inner, _, theta, lam = problem()

    def flat(params, lam):
        return 0.0 * params["w1"].sum()

    for estimator in (Guided(), Guided(scheme="forward"), Exact(), EvoGrad()):
        got = hypergradient(inner, flat, theta, lam, lr=0.1, estimator=estimator)
        assert torch.equal(got.gradients, torch.zeros(10, dtype=torch.float64))


def test_inner_products_are_real_sums_over_all_tensors():
    left = [torch.tensor([1.0, 2.0]), torch.tensor([[1 + 2j]])]
    right = [torch.tensor([3.0, -1.0]), torch.tensor([[2 - 1j]])]
    # Re(conj(1 + 2i) (2 - i)) = Re(-5i) = 0
    assert float(dot(left, right)) == 1.0
    assert not dot(left, right).is_complex()
    assert float(dot(left, left)) == 1 + 4 + 5


def test_terms_are_added_in_their_own_precision():
    totals = [torch.zeros(2), torch.zeros(1, dtype=torch.float64), torch.zeros(1) * 1j]
    terms = [torch.ones(2), torch.ones(1, dtype=torch.float64), torch.ones(1) * 1j]
    add_scaled(totals, terms, torch.tensor(0.5, dtype=torch.float64))
    assert [t.dtype for t in totals] == [t.dtype for t in terms]
    assert [t.tolist() for t in totals] == [[0.5, 0.5], [0.5], [0.5j]]
