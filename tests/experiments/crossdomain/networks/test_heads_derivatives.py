"""Second derivatives of the heads, and hypergradients through them."""

import copy

import pytest
import torch
from small_heads import CHANNELS, QUERY_Y, SUPPORT_Y, WAYS, small_head, small_maps
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from l2l_evograd import (
    EvoGrad,
    Exact,
    FeatureWiseTransform2d,
    Guided,
    bilevel_step,
    feature_transforms,
    feature_transforms_switched,
)
from l2l_evograd.experiments.crossdomain.data.episodes import Episode
from l2l_evograd.experiments.crossdomain.networks.backbones import Backbone
from l2l_evograd.experiments.crossdomain.networks.heads import (
    HEADS,
    FewShotModel,
    few_shot_loss,
    make_head,
    score_loss,
)

pytestmark = pytest.mark.usefixtures("float64")

RATE = 0.1


@pytest.mark.parametrize("name", HEADS)
def test_second_derivatives_equal_differences_of_first_ones(name):
    head = small_head(name)

    def loss(support, query):
        scores = head(support, SUPPORT_Y, query, WAYS)
        return score_loss(head, scores, QUERY_Y)

    maps = [small_maps(seed, n).requires_grad_() for seed, n in ((1, 6), (2, 5))]
    assert torch.autograd.gradgradcheck(loss, maps, fast_mode=True)


def smooth_model(name):
    """A network without kinks up to the head, with a transformation inside."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, CHANNELS, 3, padding=1, bias=False),
        nn.BatchNorm2d(CHANNELS),
        FeatureWiseTransform2d(CHANNELS),
        nn.Softplus(),
        nn.AvgPool2d(2),
    )
    backbone = Backbone(layers, 6)
    return FewShotModel(backbone, make_head(name, backbone, WAYS))


def episode(seed):
    generator = torch.Generator().manual_seed(seed)
    support, query = (torch.randn(n, 3, 6, 6, generator=generator) for n in (6, 5))
    return Episode(support, SUPPORT_Y, query, QUERY_Y)


SEEN, UNSEEN = 1, 2


def own_loss(name, scores):
    if name == "relationnet-mse":
        return (scores - F.one_hot(QUERY_Y, WAYS)).square().mean()
    return F.cross_entropy(scores, QUERY_Y)


def by_hand(name, seed):
    """The gradient for the transformation through one unrolled step of descent."""
    model = smooth_model(name)
    named = dict(model.named_parameters())
    hyper = [p for key, p in named.items() if "theta" in key]
    weights = {key: p for key, p in named.items() if "theta" not in key}
    torch.manual_seed(seed)
    loss = own_loss(name, functional_call(model, named, (episode(SEEN), WAYS)))
    slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    moved = {
        key: weight - RATE * slope
        for (key, weight), slope in zip(weights.items(), slopes, strict=True)
    }
    with feature_transforms_switched(model, False):
        scores = functional_call(model, {**named, **moved}, (episode(UNSEEN), WAYS))
        outer = own_loss(name, scores)
    return torch.cat([g.flatten() for g in torch.autograd.grad(outer, hyper)])


def estimated(name, seed, estimator):
    model = copy.deepcopy(smooth_model(name))
    hyper = list(feature_transforms(model).parameters())
    taken = {id(p) for p in hyper}
    weights = [p for p in model.parameters() if id(p) not in taken]

    def outer(view):
        with feature_transforms_switched(view, False):
            return few_shot_loss(view, episode(UNSEEN), WAYS)

    torch.manual_seed(seed)
    step = bilevel_step(
        model,
        lambda view: few_shot_loss(view, episode(SEEN), WAYS),
        outer,
        torch.optim.SGD(weights, lr=RATE),
        torch.optim.SGD(hyper, lr=RATE),
        estimator=estimator,
        base_step="before",
        generator=torch.Generator().manual_seed(0),
    )
    return torch.cat([g.flatten() for g in step.hypergradient])


@pytest.mark.parametrize("name", HEADS)
def test_exact_hypergradients_are_those_of_the_unrolled_step(name):
    expected = by_hand(name, seed=3)
    assert expected.norm() > 1e-8
    got = estimated(name, 3, Exact())
    assert torch.allclose(got, expected, rtol=1e-7, atol=1e-7 * float(expected.norm()))


@pytest.mark.parametrize("name", HEADS)
def test_a_difference_along_the_direction_agrees_with_the_exact_answer(name):
    exact = estimated(name, 3, Exact())
    # Short enough that the graph network, with a kink in every unit, crosses none.
    guided = estimated(name, 3, Guided(h=1e-7))
    assert F.cosine_similarity(guided, exact, dim=0) > 0.999
    assert guided.norm() == pytest.approx(float(exact.norm()), rel=0.01)


def test_a_population_finds_the_direction():
    exact = estimated("matchingnet", 3, Exact())
    population = EvoGrad(512, sigma=1e-4, sampling="orthogonal")
    got = estimated("matchingnet", 3, population)
    assert F.cosine_similarity(got, exact, dim=0) > 0.9
