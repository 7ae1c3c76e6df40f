"""One step of online training against the published sequence of steps."""

import copy

import pytest
import torch
from naive import algorithm_one
from online import (
    XQ,
    YQ,
    Opaque,
    X,
    Y,
    network,
    outer,
    step_by_hand,
    weight_net,
    weighted,
)
from torch import nn
from torch.nn import functional as F

from l2l_evograd import EvoGrad, Guided, bilevel_step
from l2l_evograd.seeds import draw_seed

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("where", ["behind", "inside", "computed", "called again"])
@pytest.mark.parametrize("base_step", ["after", "before"])
def test_a_bilevel_step_is_the_published_sequence_of_steps(base_step, where):
    model, hyper = network(), weight_net()
    lam = list(hyper.parameters())
    inner = weighted(hyper)
    if where == "inside":
        lam = list(model[1].parameters())

        def inner(net):
            return F.cross_entropy(net(X), Y)

    elif where == "computed":
        lam = [torch.zeros(10, requires_grad=True)]

        def inner(net):
            scales = torch.sigmoid(lam[0])
            return (scales * F.cross_entropy(net(X), Y, reduction="none")).mean()

    elif where == "called again":

        def inner(net):
            losses = F.cross_entropy(net(X), Y, reduction="none")
            weights = hyper(losses.detach()[:, None])[:, 0]
            return Opaque.apply((weights * losses).mean())

    base = [p for p in model.parameters() if all(p is not q for q in lam)]
    opt = torch.optim.SGD(base, lr=0.1, momentum=0.9)
    hyper_opt = torch.optim.SGD(lam, lr=5.0)
    reference, ref_lam = copy.deepcopy((model, lam))
    torch.manual_seed(3)
    got = bilevel_step(
        model, inner, outer, opt, hyper_opt, estimator="exact", base_step=base_step
    )
    end = torch.get_rng_state()
    expected = step_by_hand(reference, ref_lam, where, base_step)
    assert float(got.inner_loss) == pytest.approx(expected[0].item(), rel=1e-12)
    assert float(got.outer_loss) == pytest.approx(expected[1].item(), rel=1e-12)
    for a, b in zip(got.hypergradient, expected[2], strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-14)
    for a, b in zip(lam, ref_lam, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-14)
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-14)
    assert torch.allclose(model[1].running_mean, reference[1].running_mean)
    assert int(model[1].num_batches_tracked) == 1
    assert torch.equal(end, torch.get_rng_state())


def test_where_lambda_enters_behind_the_model_the_forward_pass_is_shared():
    calls = []
    model, hyper = network(), weight_net()
    model.register_forward_hook(lambda *args: calls.append(1))
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    hyper_opt = torch.optim.SGD(hyper.parameters(), lr=0.1)
    step = {"estimator": Guided(scheme="forward")}
    bilevel_step(model, weighted(hyper), outer, opt, hyper_opt, **step)
    assert len(calls) == 2  # inner and outer: the ends of differences are repeated


def test_evolution_before_surrounds_the_weights_after_the_base_step():
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    lam = torch.randn(10, requires_grad=True)
    estimator = EvoGrad(3, 0.2, 0.1)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    reference = copy.deepcopy(model)

    def inner_of(theta, lam):
        losses = F.cross_entropy(F.linear(X, *theta), Y, reduction="none")
        return (torch.sigmoid(lam) * losses).mean()

    value = inner_of(list(reference.parameters()), lam.detach())
    slopes = torch.autograd.grad(value, list(reference.parameters()))
    theta = [
        (p - 0.1 * g).detach()
        for p, g in zip(reference.parameters(), slopes, strict=True)
    ]
    noise = estimator.perturbations(theta, draw_seed(torch.Generator().manual_seed(3)))
    expected = algorithm_one(
        inner_of,
        lambda theta: F.cross_entropy(F.linear(XQ, *theta), YQ),
        theta,
        lam,
        [noise.draw(k) for k in range(3)],
        0.1,
    )[0]
    got = bilevel_step(
        model,
        lambda net: (
            torch.sigmoid(lam) * F.cross_entropy(net(X), Y, reduction="none")
        ).mean(),
        outer,
        opt,
        torch.optim.SGD([lam], lr=1.0),
        update="evolution",
        estimator=estimator,
        base_step="before",
        generator=torch.Generator().manual_seed(3),
    )
    assert torch.allclose(got.hypergradient[0], expected, rtol=1e-10, atol=1e-14)
    for a, b in zip(model.parameters(), theta, strict=True):
        assert torch.allclose(a, b, rtol=1e-12)


def test_other_parameters_of_the_base_optimizer_are_trained_too():
    model, hyper, head = network(), weight_net(), nn.Linear(3, 3)
    before = head.weight.detach().clone()
    opt = torch.optim.SGD([*model.parameters(), *head.parameters()], lr=0.1)
    hyper_opt = torch.optim.SGD(hyper.parameters(), lr=0.1)
    for base_step in ("after", "before"):
        bilevel_step(
            model,
            lambda net: weighted(hyper)(lambda x: head(net(x))),
            outer,
            opt,
            hyper_opt,
            base_step=base_step,
        )
        assert head.weight.grad is not None
        assert not torch.equal(head.weight, before)


def test_online_training_down_weights_wrong_labels():
    # Half of the labels are shuffled; the weights of samples are λ. What a learned
    # weighting must do is rank right labels above wrong ones.
    torch.manual_seed(0)
    centres = 2 * torch.randn(3, 4)
    labels = torch.arange(60) % 3
    x = centres[labels] + 0.5 * torch.randn(60, 4)
    noisy = labels.clone()
    noisy[:30] = (labels[:30] + 1) % 3
    xv, yv = centres[labels] + 0.5 * torch.randn(60, 4), labels
    for estimator in ("exact", "guided"):
        model = nn.Linear(4, 3)
        lam = torch.zeros(60, requires_grad=True)
        opt = torch.optim.SGD(model.parameters(), lr=0.5)
        hyper_opt = torch.optim.Adam([lam], lr=0.1)
        for _ in range(40):
            bilevel_step(
                model,
                lambda net, lam=lam: (
                    torch.sigmoid(lam)
                    * F.cross_entropy(net(x), noisy, reduction="none")
                ).mean(),
                lambda net: F.cross_entropy(net(xv), yv),
                opt,
                hyper_opt,
                estimator=estimator,
            )
        assert float((lam[30:, None] > lam[None, :30]).double().mean()) > 0.9


def test_a_hyperparameter_in_the_base_optimizer_is_refused():
    model, hyper = network(), weight_net()
    opt = torch.optim.SGD([*model.parameters(), *hyper.parameters()], lr=0.1)
    hyper_opt = torch.optim.SGD(hyper.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"hyperparameter 0 \(6, 1\) is in the base"):
        bilevel_step(model, weighted(hyper), outer, opt, hyper_opt)


def test_an_unknown_order_of_steps_is_refused():
    model, hyper = network(), weight_net()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    hyper_opt = torch.optim.SGD(hyper.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="base_step to be one of 'after', 'before'"):
        bilevel_step(model, weighted(hyper), outer, opt, hyper_opt, base_step="never")
