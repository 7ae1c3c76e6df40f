import copy

import pytest
import torch
from classifiers import batch
from torch import nn
from torch.nn import functional as F

from l2l_evograd import EvoGrad, Exact, Guided, bilevel_step, hypergradient

pytestmark = pytest.mark.usefixtures("float64")


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3)
    )


X, Y = (t.double() if t.is_floating_point() else t for t in batch(1))
XQ, YQ = (t.double() if t.is_floating_point() else t for t in batch(2))


def weighted(weight_net):
    """Meta-Weight-Net's inner loss: weights from the detached losses."""

    def inner(net):
        losses = F.cross_entropy(net(X), Y, reduction="none")
        weights = weight_net(losses.detach()[:, None])[:, 0]
        return (weights * losses).mean()

    return inner


def weight_net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(1, 6), nn.ReLU(), nn.Linear(6, 1), nn.Sigmoid())


def outer(net):
    return F.cross_entropy(net(XQ), YQ)


def by_hand(model, hyper, inner, seed, lr=0.1):
    """One meta step of Meta-Weight-Net as its paper writes it (equations 5 to 7)."""
    params = {n: p.detach().clone().requires_grad_() for n, p in network_of(model)}
    buffers = {n: b.clone() for n, b in model.named_buffers()}

    def call(values):
        state = {n: b.clone() for n, b in buffers.items()}
        return lambda x: torch.func.functional_call(model, (values, state), (x,))

    torch.manual_seed(seed)
    value = inner(call(params))
    slopes = torch.autograd.grad(value, list(params.values()), create_graph=True)
    moved = {n: p - lr * g for (n, p), g in zip(params.items(), slopes, strict=True)}
    state = {n: b.clone() for n, b in buffers.items()}
    # The outer loss sees the statistics that the inner pass left.
    random_state = torch.get_rng_state()
    torch.manual_seed(seed)
    torch.func.functional_call(model, (params, state), (X,))
    torch.set_rng_state(random_state)
    query = outer(lambda x: torch.func.functional_call(model, (moved, state), (x,)))
    grads = torch.autograd.grad(query, list(hyper), allow_unused=True)
    return value.detach(), query.detach(), grads, slopes


def network_of(model):
    return list(model.named_parameters())


@pytest.mark.parametrize("form", ["module", "dict"])
def test_both_forms_give_the_hypergradient_of_the_unrolled_step(form):
    model, hyper = network(), weight_net()
    inner = weighted(hyper)
    expected = by_hand(model, list(hyper.parameters()), inner, seed=3)[2]
    torch.manual_seed(3)
    if form == "module":
        result = hypergradient(inner, outer, model, hyper, lr=0.1, estimator="exact")
        got = result.gradients
    else:
        names = [n for n, _ in hyper.named_parameters()]

        def inner_of(params, lam):
            buffers = {n: b.clone() for n, b in model.named_buffers()}

            def net(x):
                return torch.func.functional_call(model, (params, buffers), (x,))

            losses = F.cross_entropy(net(X), Y, reduction="none")
            given = losses.detach()[:, None]
            weights = torch.func.functional_call(hyper, lam, (given,))[:, 0]
            return (weights * losses).mean()

        def outer_of(params, lam):
            buffers = {n: b.clone() for n, b in model.named_buffers()}
            return outer(
                lambda x: torch.func.functional_call(model, (params, buffers), (x,))
            )

        result = hypergradient(
            inner_of,
            outer_of,
            dict(model.named_parameters()),
            dict(hyper.named_parameters()),
            lr=0.1,
            estimator=Exact(),
        )
        assert list(result.gradients) == names
        got = list(result.gradients.values())
    for a, b in zip(got, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize(
    ("update", "estimator"),
    [
        ("gradient", Exact()),
        ("gradient", Guided()),
        ("gradient", Guided(scheme="forward")),
        ("gradient", EvoGrad(3)),
        ("evolution", EvoGrad(3)),
    ],
)
def test_a_hypergradient_changes_nothing(update, estimator):
    model, hyper = network(), weight_net()
    model[0].bias.requires_grad_(False)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    before = copy.deepcopy(model.state_dict())
    modules = [sorted(vars(m)) for m in model.modules()]
    torch.manual_seed(3)
    hypergradient(
        weighted(hyper), outer, model, hyper, lr=0.1, update=update, estimator=estimator
    )
    after = torch.get_rng_state()
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())
    assert all(p.grad is None for p in hyper.parameters())
    assert not model[0].bias.requires_grad and model[0].weight.requires_grad
    assert modules == [sorted(vars(m)) for m in model.modules()]
    torch.manual_seed(3)
    model(X), model(XQ)
    assert torch.equal(after, torch.get_rng_state())


def test_several_steps_and_several_losses_and_direct_dependence():
    x = torch.tensor([0.3, -0.2])
    lam = torch.tensor([0.7, 0.4])

    def first(params, lam):
        return ((params["x"] - lam) ** 2).sum()

    def second(params, lam):
        return (torch.exp(lam[0]) * params["x"] ** 2).sum()

    def query(params, lam):
        return (params["x"] ** 2).sum() + (lam**2).sum()

    got = hypergradient(
        [first, second], query, {"x": x}, lam, lr=0.1, steps=2, estimator="exact"
    )
    lam = lam.clone().requires_grad_()
    after = x - 0.1 * 2 * (x - lam)
    after = after - 0.1 * 2 * torch.exp(lam[0]) * after
    expected = torch.autograd.grad((after**2).sum() + (lam**2).sum(), lam)[0]
    assert torch.allclose(got.gradients, expected, rtol=1e-12)
    assert torch.allclose(got.params["x"], after.detach(), rtol=1e-12)
    assert float(got.outer_loss) == pytest.approx(
        float(query({"x": after}, lam).detach())
    )
    assert float(got.inner_loss) == pytest.approx(0.52)


def test_a_hyperparameter_that_one_loss_does_not_use():
    x = torch.tensor([0.3, -0.2])
    used, spare = torch.tensor(0.7), torch.tensor(0.4)

    def inner(params, lam):
        return (lam[0] * params["x"] ** 2).sum()

    def query(params, lam):
        return (params["x"] ** 2).sum() + lam[1] ** 2

    problem = (inner, query, {"x": x}, [used, spare])
    with pytest.raises(
        ValueError, match=r"1 of the 2 hyperparameters: hyperparameter 1"
    ):
        hypergradient(*problem, lr=0.1)
    for estimator in ("exact", "guided", "evograd"):
        got = hypergradient(*problem, lr=0.1, estimator=estimator, allow_unused=True)
        assert float(got.gradients[1]) == pytest.approx(0.8)
    exact = hypergradient(*problem, lr=0.1, estimator="exact", allow_unused=True)
    after = x * (1 - 0.2 * 0.7)
    expected = (2 * after * -0.2 * x).sum()
    assert float(exact.gradients[0]) == pytest.approx(float(expected), rel=1e-12)


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


class Opaque(torch.autograd.Function):
    """The identity, hidden from everything that follows tensors."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad


def step_by_hand(model, lam, where, base_step):
    hyper = weight_net()
    if where in ("behind", "called again"):
        for p, q in zip(hyper.parameters(), lam, strict=True):
            p.requires_grad_(False)
            del p, q

    def inner(net):
        losses = F.cross_entropy(net(X), Y, reduction="none")
        if where == "inside":
            return losses.mean()
        if where == "computed":
            return (torch.sigmoid(lam[0]) * losses).mean()
        named = dict(zip([n for n, _ in hyper.named_parameters()], lam, strict=True))
        given = losses.detach()[:, None]
        weights = torch.func.functional_call(hyper, named, (given,))[:, 0]
        return (weights * losses).mean()

    names = [n for n, p in model.named_parameters() if all(p is not q for q in lam)]
    params = dict(model.named_parameters())
    fixed = {n: p for n, p in params.items() if n not in names}
    buffers = {n: b.clone() for n, b in model.named_buffers()}

    def net(values, state):
        everything = ({**fixed, **values}, state)
        return lambda x: torch.func.functional_call(model, everything, (x,))

    def copied(state):
        return {n: b.clone() for n, b in state.items()}

    torch.manual_seed(3)
    state = copied(buffers)
    values = {n: params[n] for n in names}
    value = inner(net(values, state))
    slopes = torch.autograd.grad(value, list(values.values()), create_graph=True)
    moved = {n: values[n] - 0.1 * g for n, g in zip(names, slopes, strict=True)}
    query = outer(net(moved, copied(state)))
    grads = torch.autograd.grad(query, lam)
    end = torch.get_rng_state()
    with torch.no_grad():
        for p, g in zip(lam, grads, strict=True):
            p -= 5.0 * g
    if base_step == "after":
        torch.manual_seed(3)
        again = inner(net(values, copied(buffers)))
        slopes = torch.autograd.grad(again, list(values.values()))
    with torch.no_grad():
        for n, g in zip(names, slopes, strict=True):
            params[n] -= 0.1 * g.detach()
        for n, b in model.named_buffers():
            b.copy_(state[n])
    torch.set_rng_state(end)
    return value, query, grads


def test_where_lambda_enters_behind_the_model_the_forward_pass_is_shared():
    calls = []
    model, hyper = network(), weight_net()
    model.register_forward_hook(lambda *args: calls.append(1))
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    hyper_opt = torch.optim.SGD(hyper.parameters(), lr=0.1)
    step = {"estimator": Guided(scheme="forward")}
    bilevel_step(model, weighted(hyper), outer, opt, hyper_opt, **step)
    assert len(calls) == 3  # inner, outer, one end of the difference


def test_evolution_before_surrounds_the_weights_after_the_base_step():
    from naive import algorithm_one

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
    from l2l_evograd.perturbations import draw_seed

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


# What gets an error, and what it says.


def test_a_tensor_among_both_weights_and_hyperparameters_is_refused():
    model, hyper = network(), weight_net()
    lam = model[1].weight
    with pytest.raises(
        ValueError, match=r"hyperparameter 0 \(8,\) is among the weights"
    ):
        hypergradient(
            lambda p, h: p["1.weight"].sum(),
            lambda p, h: p["1.weight"].sum(),
            dict(model.named_parameters()),
            lam,
            lr=0.1,
        )
    opt = torch.optim.SGD([*model.parameters(), *hyper.parameters()], lr=0.1)
    hyper_opt = torch.optim.SGD(hyper.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"hyperparameter 0 \(6, 1\) is in the base"):
        bilevel_step(model, weighted(hyper), outer, opt, hyper_opt)


def simple(**kwargs):
    settings = {
        "inner_loss": lambda p, lam: (lam * p["x"] ** 2).sum(),
        "outer_loss": lambda p, lam: (p["x"] ** 2).sum(),
        "params": {"x": torch.ones(2)},
        "hyperparameters": torch.ones(()),
        "lr": 0.1,
    }
    settings.update(kwargs)
    return hypergradient(**settings)


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"lr": None}, ValueError, "lr, the inner learning rate, .* got None"),
        ({"lr": -0.1}, ValueError, "lr to be positive and finite, got -0.1"),
        ({"steps": 0}, ValueError, "steps to be a whole number of at least 1, got 0"),
        ({"steps": 1.5}, ValueError, "steps to be a whole number .* got 1.5"),
        ({"inner_loss": []}, ValueError, "one inner loss for each of 1 steps, got 0"),
        (
            {"inner_loss": [lambda p, h: p["x"].sum()] * 2, "steps": 3},
            ValueError,
            "one inner loss for each of 3 steps, got 2",
        ),
        ({"params": {}}, TypeError, "params to be a dict of tensors or a module, got"),
        ({"params": 3}, TypeError, "use dict\\(model.named_parameters\\(\\)\\)"),
        ({"hyperparameters": 0.5}, TypeError, "a sequence or a dict of tensors, got f"),
        ({"hyperparameters": [0.5]}, TypeError, "to be a tensor, got float"),
        ({"hyperparameters": []}, ValueError, "at least one hyperparameter, got none"),
        (
            {"inner_loss": lambda p, h: (p["x"] ** 2).sum()},
            ValueError,
            r"does not depend on 1 of the 1 hyperparameters: hyperparameter 0 \(\)",
        ),
        (
            {"inner_loss": lambda p, h: h * p["x"] ** 2},
            ValueError,
            r"inner loss to be a scalar, got a tensor of shape \(2,\)",
        ),
        (
            {"outer_loss": lambda p, h: p["x"].sum() / 0.0},
            ValueError,
            "the outer loss to be finite, got inf",
        ),
        ({"outer_loss": lambda p, h: 1.0}, TypeError, "the outer loss .* got float"),
        ({"estimator": "newton"}, ValueError, "estimator to be one of 'evograd'"),
        ({"update": "newton"}, ValueError, "update to be one of 'gradient'"),
    ],
)
def test_what_cannot_work_is_refused(settings, kind, message):
    with pytest.raises(kind, match=message):
        simple(**settings)


def test_an_unknown_order_of_steps_is_refused():
    model, hyper = network(), weight_net()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    hyper_opt = torch.optim.SGD(hyper.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="base_step to be one of 'after', 'before'"):
        bilevel_step(model, weighted(hyper), outer, opt, hyper_opt, base_step="never")
