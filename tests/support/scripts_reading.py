"""Ways to adapt a learner by losses without writes in place."""

import numpy as np
import torch
from scripts import cases, query
from torch.nn import functional as F

READING, case = cases()


@case
def plain_cross_entropy(learner, d):
    learner.adapt(F.cross_entropy(learner(d.x), d.y))
    return query(learner, d)


@case
def many_functions(learner, d):
    logits = learner(d.x)
    stacked = torch.stack([logits, learner(d.x2)])
    values, places = stacked.max(dim=0)
    top = torch.topk(values, 2)
    sorted_, order = torch.sort(logits, dim=1, descending=True)
    joined = torch.cat([logits, learner(d.x2)], dim=1)
    chosen = torch.where(logits > 0, logits, d.temperature * logits)
    product = torch.einsum("bi,bj->ij", logits, values)
    loss = F.cross_entropy(chosen, d.y) + product.diagonal().mean()
    loss = loss + joined.gather(1, places + 1).mean() + top.values.var()
    loss = loss + sorted_[:, 0].mean() + (order.to(logits.dtype) * logits).mean()
    loss = loss + torch.meshgrid(logits[0], logits[1], indexing="ij")[0].sum()
    loss = loss + torch.linalg.norm(logits) + torch.cdist(logits, values).mean()
    loss = loss + F.pairwise_distance(logits, values).mean()
    learner.adapt(loss)
    return query(learner, d)


@case
def operators_and_methods(learner, d):
    logits = learner(d.x)
    loss = (1 - logits).pow(2).mean() + (2**logits).mean() + abs(logits).mean()
    loss = loss + (d.x @ d.body.weight[:, :3] @ logits.T).tanh().mean()
    loss = loss + logits.T.mT.flatten().unflatten(0, (9, 3)).std(0).sum()
    loss = loss + (-logits).softmax(-1).clamp_min(1e-6).log().mean()
    loss = loss + logits.to(torch.float64).type_as(d.x).double().sum() * 0.01
    loss = loss + logits.unsqueeze(0).expand(2, 9, 3)[..., None].squeeze().mean()
    for row in logits:
        loss = loss + 0.1 * row.amax()
    a, b, c = logits.T
    loss = loss + (a * b / (c * c + 1)).mean()
    learner.adapt(loss)
    return query(learner, d)


@case
def masks_of_booleans_and_numpy(learner, d):
    logits = learner(d.x)
    mask = np.zeros(9, dtype=bool)
    mask[np.arange(3) * 2] = True
    loss = F.cross_entropy(logits[mask], d.y[mask]) * d.temperature
    loss = loss + logits[d.y == 2].square().mean() + logits[~mask][:, [0, 2]].sum()
    loss = loss + logits[torch.from_numpy(mask)].mean() + logits[logits > 0].mean()
    loss = loss + logits[np.array([1, 4]), np.int64(1)].sum() + logits[..., -1].sum()
    learner.adapt(loss)
    return query(learner, d)


@case
def fast_adapt_of_learn2learn(learner, d):
    data, labels = d.x, d.y
    adaptation = np.zeros(data.size(0), dtype=bool)
    adaptation[np.arange(4) * 2] = True
    evaluation = torch.from_numpy(~adaptation)
    adaptation = torch.from_numpy(adaptation)
    for _ in range(2):
        error = F.cross_entropy(learner(data[adaptation]), labels[adaptation])
        learner.adapt(error)
    predictions = learner(data[evaluation])
    error = F.cross_entropy(predictions, labels[evaluation])
    predictions = predictions.argmax(dim=1).view(labels[evaluation].shape)
    accuracy = (predictions == labels[evaluation]).sum().float()
    assert 0 <= float(accuracy / labels[evaluation].size(0)) <= 1
    return error


@case
def weights_that_were_detached(learner, d):
    losses = F.cross_entropy(learner(d.x), d.y, reduction="none")
    weights = torch.softmax(d.lam * losses.detach(), 0)
    learner.adapt((weights * losses).sum())
    return query(learner, d)


@case
def a_target_without_grad_from_another_network(learner, d):
    with torch.no_grad():
        target = d.teacher(d.x).softmax(1)
    learner.adapt(F.kl_div(learner(d.x).log_softmax(1), target, reduction="sum"))
    return query(learner, d)


@case
def a_target_without_grad_from_the_learner(learner, d):
    with torch.no_grad():
        target = learner(d.x).softmax(1)
        target[:, 0] += 0.1
    learner.adapt(((learner(d.x2) - target) ** 2 * d.temperature).mean())
    return query(learner, d)


@case
def dropout_behind_the_module(learner, d):
    for _ in range(2):
        hidden = F.dropout(learner.features(d.x), 0.4)
        loss = F.cross_entropy(learner.head(hidden), d.y)
        loss = loss + (torch.rand_like(hidden) * hidden).mean()
        learner.adapt(loss + F.dropout(learner(d.x2), 0.2).square().mean())
    return F.cross_entropy(F.dropout(learner(d.xq), 0.3), d.yq)


@case
def a_penalty_on_the_parameters(learner, d):
    for _ in range(2):
        loss = F.cross_entropy(learner(d.x), d.y)
        for parameter in learner.parameters():
            loss = loss + d.temperature * parameter.square().sum()
        loss += learner.module.head.weight.abs().sum() * 0.01
        norms = [p.norm() for p in learner.module.parameters() if p.ndim == 2]
        learner.adapt(loss + torch.stack(norms).sum() * 0.1)
    return query(learner, d) + 0.1 * learner.head.weight.square().sum()


@case
def a_distance_to_where_the_learner_started(learner, d):
    start = [p.detach().clone() for p in learner.parameters()]
    learner.adapt(F.cross_entropy(learner(d.x), d.y))
    loss = F.cross_entropy(learner(d.x), d.y)
    for p, s in zip(learner.parameters(), start, strict=True):
        loss = loss + ((p - s) ** 2).sum()
    learner.adapt(loss)
    return query(learner, d)


@case
def a_distance_to_the_original_weights(learner, d):
    learner.adapt(F.cross_entropy(learner(d.x), d.y))
    loss = F.cross_entropy(learner(d.x), d.y)
    for p, s in zip(learner.parameters(), d.model.parameters(), strict=True):
        loss = loss + ((p - s) ** 2).sum()
    learner.adapt(loss)
    return query(learner, d)


@case
def parts_called_by_themselves(learner, d):
    hidden = learner.features(d.body(d.x))
    learner.adapt(F.cross_entropy(learner.head(hidden * 2), d.y))
    learner.adapt(F.cross_entropy(learner.head(learner.features[:2](d.x)), d.y))
    learner.adapt(
        F.cross_entropy(F.linear(hidden.detach(), learner.head.weight), d.y)
        + learner(d.x).mean()
    )
    return F.cross_entropy(learner.head(learner.features(d.body(d.xq))), d.yq)


@case
def features_of_a_body_outside(learner, d):
    for _ in range(2):
        learner.adapt(F.cross_entropy(learner(d.body(d.x)), d.y))
    return F.cross_entropy(learner(d.body(d.xq)), d.yq)
