"""Ways to adapt a learner by losses without writes in place."""

import numpy as np
import torch
from scripts import WAYS, cases, query
from torch import nn
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


@case
def several_passes_before_one_step(learner, d):
    first = learner(d.x)
    second = learner(first.new_zeros(9, 4) + d.x2)
    third = learner(torch.cat([first, d.lam[:, None]], 1))
    learner.adapt(F.cross_entropy(first + second * third, d.y))
    return query(learner, d)


@case
def five_steps(learner, d):
    for i in range(5):
        weights = torch.sigmoid(d.lam)
        losses = F.cross_entropy(learner(d.x + i), d.y, reduction="none")
        learner.adapt((weights * losses).mean())
    return query(learner, d)


@case
def logits_from_before_an_earlier_step(learner, d):
    before = learner(d.x)
    first_features = learner.features(d.x2)
    learner.adapt(F.cross_entropy(learner(d.x), d.y))
    now = learner(d.x)
    loss = ((now - before) ** 2).mean() + F.cross_entropy(now, d.y)
    learner.adapt(loss + F.cross_entropy(learner.head(first_features), d.y))
    return query(learner, d) + (learner(d.xq) * before).mean()


@case
def a_step_taken_back_and_forth(learner, d):
    losses = []
    for _ in range(3):
        losses.append(F.cross_entropy(learner(d.x), d.y))
        learner.adapt(losses[-1])
    return query(learner, d)


@case
def queries_between_the_steps(learner, d):
    total = query(learner, d)
    for _ in range(3):
        learner.adapt(F.cross_entropy(learner(d.x), d.y))
        total = total + query(learner, d) * d.temperature
    return total


@case
def a_clone_of_a_clone(learner, d):
    learner.adapt(F.cross_entropy(learner(d.x), d.y))
    twin = learner.clone()
    twin.adapt(F.cross_entropy(twin(d.x2), d.y) * d.temperature)
    learner.adapt(F.cross_entropy(learner(d.x2), d.yq))
    return query(twin, d) + query(learner, d)


@case
def one_learner_calls_the_other_on_its_output(learner, d):
    other = learner.clone()
    out = learner(d.x)
    padded = torch.cat([out, d.lam[:, None]], dim=1)
    loss = F.cross_entropy(other(padded), d.y)
    other.adapt(loss + other(d.x).square().mean())
    return query(other, d)


@case
def outputs_through_ordinary_modules(learner, d):
    for _ in range(2):
        out = learner(d.x)
        loss = d.other(out).square().mean() + nn.CrossEntropyLoss()(out, d.y)
        learner.adapt(loss + nn.LayerNorm(WAYS)(out)[:, 0].mean())
    return d.other(learner(d.xq)).square().mean()


@case
def eval_mode_after_the_first_step(learner, d):
    learner.adapt(F.cross_entropy(learner(d.x), d.y))
    learner.eval()
    learner.adapt(F.cross_entropy(learner(d.x), d.y))
    out = query(learner, d)
    learner.train()
    return out


@case
def a_callable(learner, d):
    for _ in range(2):
        learner.adapt(
            lambda view: (
                F.cross_entropy(view(d.x), d.y) * d.temperature
                + view.head.weight.square().mean()
            )
        )
    return query(learner, d)


@case
def retained_gradients_and_tensor_hooks(learner, d):
    seen = []
    out = learner(d.x) * 1
    out.register_hook(lambda g: seen.append(g.shape))
    learner.adapt(F.cross_entropy(out, d.y))
    assert torch.Size([9, WAYS]) in seen
    return query(learner, d)


@case
def requires_grad_set_on_an_input(learner, d):
    x = d.x.clone().requires_grad_()
    loss = F.cross_entropy(learner(x), d.y)
    loss = loss + x.square().mean() * loss
    learner.adapt(loss)
    return query(learner, d)


@case
def numbers_taken_from_outputs(learner, d):
    logits = learner(d.x)
    count = int((logits.detach() > 0).sum())
    weight = logits.mean().item()
    numbers = logits.detach().numpy().sum() + sum(logits.tolist()[0])
    learner.adapt(F.cross_entropy(logits, d.y) * (1 + weight + count) + 0 * numbers)
    return query(learner, d)


@case
def the_same_input_twice(learner, d):
    out = learner(d.x)
    learner.adapt((out * out).mean() + torch.stack([out, out]).sum() * 0.1)
    return query(learner, d)


@case
def a_gradient_inside_the_loss(learner, d):
    logits = learner(d.x)
    loss = F.cross_entropy(logits, d.y)
    weights = torch.autograd.grad(loss, logits, retain_graph=True)[0].abs()
    learner.adapt(loss + (weights.detach() * logits).sum())
    return query(learner, d)


@case
def a_sibling_as_teacher(learner, d):
    teacher = d.sibling()
    teacher.adapt(F.cross_entropy(teacher(d.x), d.y))
    target = teacher(d.x2).softmax(1)
    learner.adapt((learner(d.x2).log_softmax(1) * target).sum(1).mean().neg())
    learner.adapt(((learner(d.x2) - target) ** 2).mean())
    return query(learner, d) + query(teacher, d)


@case
def sums_of_a_batch_of_tasks(learner, d):
    total = 0.0
    for shift in range(3):
        task = d.sibling()
        task.adapt(F.cross_entropy(task(d.x + shift), d.y))
        total += query(task, d)
    total /= 3
    return total
