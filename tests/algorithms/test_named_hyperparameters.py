"""Hyperparameters wherever they are: found, never adapted, and given their gradient."""

import weakref

import learn2learn as l2l
import pytest
import torch
from classifiers import assert_close, batch, meta_gradient, network
from naive import algorithm_one
from torch import nn
from torch.nn import functional as F

from l2l_evograd import EvoGrad, EvoGradMetaOptimizer, Exact, Guided
from l2l_evograd.seeds import draw_seed

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize(
    "estimator", ["exact", Guided(h=1e-4), Guided(1e-4, "forward")]
)
@pytest.mark.parametrize("where", ["inside", "name", "outside", "computed"])
def test_hyperparameters_are_found_wherever_they_are(where, estimator):
    model = network()
    x, y = batch(1)
    xq, yq = batch(2)
    lam = torch.zeros(10, requires_grad=True)
    named = {"inside": [model[1]], "name": ["1"]}.get(where, [lam])

    def loss(net):
        losses = F.cross_entropy(net(x), y, reduction="none")
        if where == "outside":
            losses = torch.sigmoid(lam) * losses
        elif where == "computed":
            losses = weights * losses
        return losses.mean()

    def gradients(estimator):
        meta = EvoGradMetaOptimizer(
            model, 0.1, hyperparameters=named, estimator=estimator
        )
        learner = meta.clone()
        learner.adapt(loss(learner))
        query = F.cross_entropy(learner(xq), yq)
        return torch.autograd.grad(query, meta.hyperparameters)

    weights = torch.sigmoid(lam)
    got = gradients(estimator)
    weights = torch.sigmoid(lam)
    params = dict(model.named_parameters())
    excluded = {"1.weight", "1.bias"} if where in ("inside", "name") else set()

    def call(values, x):
        return torch.func.functional_call(model, values, (x,))

    adapted = {n: p for n, p in params.items() if n not in excluded}
    value = loss(lambda x: call(params, x))
    grads = torch.autograd.grad(value, list(adapted.values()), create_graph=True)
    moved = {n: p - 0.1 * g for (n, p), g in zip(adapted.items(), grads, strict=True)}
    query = F.cross_entropy(call({**params, **moved}, xq), yq)
    targets = [params[n] for n in sorted(excluded, reverse=True)] or [lam]
    expected = torch.autograd.grad(query, targets)
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        rtol = {"exact": 1e-8}.get(
            estimator if isinstance(estimator, str) else "", 2e-4
        )
        assert float((a - b).norm() / b.norm()) <= rtol


def test_named_hyperparameters_are_never_adapted():
    model = network()
    meta = EvoGradMetaOptimizer(model, 0.1, hyperparameters=model[1])
    learner = meta.clone()
    x, y = batch(1)
    learner.adapt(F.cross_entropy(learner(x), y))
    assert learner.module[1].weight is model[1].weight
    assert not torch.equal(learner.module[0].weight, model[0].weight)


def test_naming_hyperparameters_makes_the_initial_weights_first_order():
    model = network()
    meta = EvoGradMetaOptimizer(model, 0.1, hyperparameters=model[1])
    assert meta.first_order is True
    assert EvoGradMetaOptimizer(model, 0.1).first_order is False
    meta_gradient(meta, 2)
    ours = {n: p.grad.clone() for n, p in model.named_parameters()}
    learner = meta.clone()
    x, y = batch(1)
    xq, yq = batch(2)
    for _ in range(2):
        learner.adapt(F.cross_entropy(learner(x), y))
    names = [n for n in ours if not n.startswith("1.")]
    weights = dict(learner.module.named_parameters())
    query = F.cross_entropy(learner(xq), yq)
    plain = torch.autograd.grad(query, [weights[n] for n in names])
    for name, expected in zip(names, plain, strict=True):
        assert torch.allclose(ours[name], expected, rtol=1e-12)


@pytest.mark.parametrize("first_order", [False, True])
def test_features_of_a_body_outside_get_the_gradient_that_maml_gives_them(first_order):
    def run(algorithm):
        torch.manual_seed(0)
        body, head = nn.Linear(4, 6), nn.Linear(6, 3)
        meta = algorithm(head, lr=0.1, first_order=first_order)
        x, y = batch(1)
        features = torch.tanh(body(x))
        learner = meta.clone()
        for _ in range(3):
            learner.adapt(F.cross_entropy(learner(features[:5]), y[:5]))
        loss = F.cross_entropy(learner(features[5:]), y[5:])
        loss.backward()
        return loss.item(), [p.grad for p in (*body.parameters(), *head.parameters())]

    assert_close(run(EvoGradMetaOptimizer), run(l2l.algorithms.MAML))


def test_evolution_gives_the_gradient_of_algorithm_one_to_everything():
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    lam = torch.randn(10, requires_grad=True)
    x, y = batch(1)
    xq, yq = batch(2)
    estimator = EvoGrad(3, 0.2, 0.1)
    meta = EvoGradMetaOptimizer(
        model,
        0.1,
        first_order=False,
        hyperparameters=lam,
        update="evolution",
        estimator=estimator,
        generator=torch.Generator().manual_seed(3),
    )

    def inner(theta, lam):
        logits = F.linear(x, theta[0], theta[1])
        losses = F.cross_entropy(logits, y, reduction="none")
        return (torch.sigmoid(lam) * losses).mean()

    learner = meta.clone()
    losses = F.cross_entropy(learner(x), y, reduction="none")
    learner.adapt((torch.sigmoid(lam) * losses).mean())
    F.cross_entropy(learner(xq), yq).backward()
    theta = list(model.parameters())
    noise = estimator.perturbations(theta, draw_seed(torch.Generator().manual_seed(3)))
    expected, expected_theta, merged = algorithm_one(
        inner,
        lambda theta: F.cross_entropy(F.linear(xq, theta[0], theta[1]), yq),
        theta,
        lam,
        [noise.draw(k) for k in range(3)],
        0.1,
    )
    assert torch.allclose(lam.grad, expected, rtol=1e-10, atol=1e-14)
    for got, want in zip(learner.module.parameters(), merged, strict=True):
        assert torch.allclose(got, want, rtol=1e-10)
    for parameter, want in zip(theta, expected_theta, strict=True):
        assert torch.allclose(parameter.grad, want, rtol=1e-10, atol=1e-14)


def test_peak_memory_does_not_grow_with_the_population():
    # What lives at one time is counted through weak references to the candidates'
    # activations, which autograd keeps as long as a candidate's graph lives.
    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            hidden = torch.tanh(self.layer(x))
            living.add(hidden)
            peaks.append(len(living))
            return hidden

    for update in ("gradient", "evolution"):
        highest = {}
        for count in (2, 16):
            living, peaks = weakref.WeakSet(), []
            model = Watched()
            lam = torch.zeros(10, requires_grad=True)
            meta = EvoGradMetaOptimizer(
                model,
                0.1,
                hyperparameters=lam,
                update=update,
                estimator=EvoGrad(count, 0.1),
            )
            x, y = batch(1)
            learner = meta.clone()
            losses = F.cross_entropy(learner(x), y, reduction="none")
            learner.adapt((torch.sigmoid(lam) * losses).mean())
            F.cross_entropy(learner(x), y).backward()
            highest[count] = max(peaks)
        assert highest[2] == highest[16]


def test_autocast_in_bfloat16_works_and_comes_back_in_backward():
    torch.set_default_dtype(torch.float32)
    model = network()
    lam = torch.zeros(10, requires_grad=True)
    x, y = batch(1)
    grads = {}
    for estimator in (Exact(), Guided(h=0.1)):
        meta = EvoGradMetaOptimizer(
            model, 0.1, hyperparameters=lam, estimator=estimator
        )
        learner = meta.clone()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = F.cross_entropy(learner(x), y, reduction="none")
            learner.adapt((torch.sigmoid(lam) * losses).mean())
            query = F.cross_entropy(learner(x), y)
        query.backward()
        assert learner.module[0].weight.dtype == torch.float32
        grads[type(estimator)] = lam.grad.clone()
        lam.grad = None
    # bfloat16 carries 8 bits, so two ways of rounding agree to about a hundredth.
    cosine = F.cosine_similarity(grads[Exact], grads[Guided], dim=0)
    assert float(cosine) > 0.98
