import pytest
import torch
from small_heads import (
    QUERY_Y,
    SUPPORT_Y,
    WAYS,
    small_head,
    small_maps,
    toy_maps,
)
from torch.nn import functional as F

from l2l_evograd.experiments.crossdomain.networks.heads import (
    HEADS,
    few_shot_accuracy,
    score_loss,
)

pytestmark = pytest.mark.usefixtures("float64")

WITH_WEIGHTS = [name for name in HEADS if name != "protonet"]


def scored(head, support, query, support_y=SUPPORT_Y):
    return head(support, support_y, query, WAYS)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", HEADS)
def test_queries_in_another_order_have_the_same_scores(name, training):
    head = small_head(name).train(training)
    support, query = small_maps(1, 6), small_maps(2, 5)
    order = torch.tensor([3, 0, 4, 1, 2])
    first = scored(head, support, query)
    assert first.shape == (5, WAYS)
    assert torch.isfinite(first).all()
    assert first.std() > 1e-6
    second = scored(head, support, query[order])
    assert torch.allclose(first[order], second, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", HEADS)
def test_in_evaluation_a_query_is_scored_on_its_own(name):
    head = small_head(name).eval()
    support, query = small_maps(1, 6), small_maps(2, 5)
    together = scored(head, support, query)
    alone = [scored(head, support, query[i : i + 1]) for i in range(5)]
    assert torch.allclose(together, torch.cat(alone), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", [name for name in HEADS if name != "gnn"])
def test_other_names_for_the_classes_rename_the_columns(name):
    head = small_head(name).eval()
    support, query = small_maps(1, 6), small_maps(2, 5)
    new_name = torch.tensor([2, 0, 1])
    first = scored(head, support, query)
    second = scored(head, support, query, new_name[SUPPORT_Y])
    assert torch.allclose(first, second[:, new_name], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", [name for name in HEADS if name != "matchingnet"])
def test_the_order_of_the_support_images_does_not_matter(name):
    head = small_head(name).eval()
    support, query = small_maps(1, 6), small_maps(2, 5)
    order = torch.tensor([5, 2, 0, 1, 4, 3])
    first = scored(head, support, query)
    second = scored(head, support[order], query, SUPPORT_Y[order])
    assert torch.allclose(first, second, rtol=1e-10, atol=1e-10)


def test_a_matching_net_sees_the_order_of_the_support_images():
    head = small_head("matchingnet")
    support, query = small_maps(1, 6), small_maps(2, 5)
    order = torch.tensor([5, 2, 0, 1, 4, 3])
    first = scored(head, support, query)
    second = scored(head, support[order], query, SUPPORT_Y[order])
    assert not torch.allclose(first, second, rtol=1e-3)


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_gradients_reach_every_parameter(name):
    head = small_head(name)
    scores = scored(head, small_maps(1, 6), small_maps(2, 5))
    score_loss(head, scores, QUERY_Y).backward()
    for key, parameter in head.named_parameters():
        largest = parameter.grad.abs().max()
        if name == "relationnet" and key == "score.2.bias":
            assert largest < 1e-12  # soft-max does not see what all scores share
        else:
            assert largest > 1e-9, key


@pytest.mark.parametrize("name", HEADS)
def test_gradients_reach_the_maps(name):
    head = small_head(name)
    support = small_maps(1, 6).requires_grad_()
    query = small_maps(2, 5).requires_grad_()
    score_loss(head, scored(head, support, query), QUERY_Y).backward()
    for maps in (support, query):
        assert (maps.grad.flatten(1).abs().amax(1) > 1e-9).all()


@pytest.mark.parametrize(
    ("name", "steps"),
    [("relationnet", 30), ("relationnet-mse", 30), ("matchingnet", 60), ("gnn", 10)],
)
def test_a_few_steps_of_adam_learn_to_tell_classes_apart(name, steps):
    head = small_head(name)
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)

    def held_out():
        support, support_y = toy_maps(1000, 2)
        query, query_y = toy_maps(1001, 10)
        with torch.no_grad():
            scores = head(support, support_y, query, WAYS)
            loss = score_loss(head, scores, query_y)
        return float(loss), few_shot_accuracy(scores, query_y)

    first_loss, first_accuracy = held_out()
    for step in range(steps):
        support, support_y = toy_maps(2 * step, 2)
        query, query_y = toy_maps(2 * step + 1, 5)
        optimizer.zero_grad()
        scores = head(support, support_y, query, WAYS)
        score_loss(head, scores, query_y).backward()
        optimizer.step()
    loss, accuracy = held_out()
    assert loss < 0.7 * first_loss
    assert accuracy > 0.85
    assert accuracy > first_accuracy + 0.2


@pytest.mark.parametrize("name", HEADS)
def test_half_precision_changes_scores_by_little(name):
    head = small_head(name).float()
    support, query = small_maps(1, 6).float(), small_maps(2, 5).float()
    full = scored(head, support, query).detach()
    with torch.autocast("cpu", torch.bfloat16):
        half = scored(head, support.bfloat16(), query.bfloat16())
    assert (half.detach() - full).abs().max() < 0.1 * full.std()


def test_without_a_loss_of_its_own_a_head_is_trained_by_cross_entropy():
    scores = small_maps(1, 5)[:, :WAYS, 0, 0]
    for name in ("protonet", "relationnet", "matchingnet", "gnn"):
        got = score_loss(small_head(name), scores, QUERY_Y)
        assert torch.equal(got, F.cross_entropy(scores, QUERY_Y))


def test_squared_errors_are_those_to_one_hot_classes():
    head = small_head("relationnet-mse")
    support, query = small_maps(1, 6), small_maps(2, 5)
    scores = scored(head, support, query).detach()
    assert ((scores > 0) & (scores < 1)).all()
    plain = small_head("relationnet")
    expected = 1 / (1 + torch.exp(-scored(plain, support, query)))
    assert torch.allclose(scores, expected, rtol=1e-12)
    total = 0.0
    for q in range(5):
        for c in range(WAYS):
            target = 1.0 if int(QUERY_Y[q]) == c else 0.0
            total += (float(scores[q, c]) - target) ** 2
    got = float(score_loss(head, scores, QUERY_Y))
    assert got == pytest.approx(total / (5 * WAYS), rel=1e-12)
