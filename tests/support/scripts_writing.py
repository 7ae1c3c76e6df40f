"""Ways to adapt a learner by losses that are computed with writes in place."""

import torch
from scripts import WAYS, cases, query
from torch.nn import functional as F

WRITING, case = cases()


@case
def division_in_place(learner, d):
    loss = F.cross_entropy(learner(d.x), d.y, reduction="sum")
    loss /= len(d.y)
    loss *= 2
    loss -= 0.5
    learner.adapt(loss)
    return query(learner, d)


@case
def addition_in_place_of_other_losses(learner, d):
    loss = F.cross_entropy(learner(d.x), d.y)
    loss += learner(d.x2).square().mean()
    loss += (d.lam**2).sum() * loss.detach().clone()
    loss.add_(F.cross_entropy(learner(d.x2), d.y), alpha=0.3)
    loss.mul_(d.temperature)
    learner.adapt(loss)
    return query(learner, d)


@case
def writes_through_views_of_an_output(learner, d):
    out = learner(d.x) * 1
    row = out[0]
    row.mul_(2)
    out.view(-1)[::2].add_(d.lam.repeat(3)[::2])
    out.t()[1].copy_(out[:, 0] * 3)
    first, *_ = out.split(1, dim=1)
    loss = F.cross_entropy(out, d.y) + row.sum() + first.sum()
    learner.adapt(loss)
    return query(learner, d)


@case
def a_view_read_before_and_after_its_base_was_written(learner, d):
    out = learner(d.x) * 1
    column = out[:, 1]
    before = column.exp()
    out[:, 1] = d.lam
    out *= 2
    after = column * out[:, 2]
    learner.adapt(before.mean() + after.mean() + out.square().mean())
    return query(learner, d)


@case
def a_view_of_a_view_written_to(learner, d):
    out = learner(d.x) * 1
    corner = out[2:7][1:3, :2]
    corner += 1
    corner.diagonal().mul_(d.temperature)
    learner.adapt(F.cross_entropy(out, d.y) + (corner**2).sum() * 0.1)
    return query(learner, d)


@case
def items_set_in_the_output(learner, d):
    logits = learner(d.x)
    logits[:, 0] = 0.0
    logits[0] = logits[1] * 2
    logits[d.y == 1] = d.other.weight.expand(3, 3)
    logits[3:5, 1] += 1
    learner.adapt(F.cross_entropy(logits, d.y))
    return query(learner, d)


@case
def losses_set_in_a_buffer_of_zeros(learner, d):
    losses = torch.zeros(4)
    for i in range(4):
        losses[i] = F.cross_entropy(learner(d.x[i:] + i), d.y[i:])
    learner.adapt((losses * d.lam[:4]).mean())
    return query(learner, d)


@case
def an_in_place_function_with_out(learner, d):
    # out= is not differentiable; it is used for what is held fixed.
    out = torch.empty(9, WAYS)
    with torch.no_grad():
        torch.softmax(learner(d.x), 1, out=out)
    logits = learner(d.x)
    learner.adapt((out * logits).sum(1).mean() + F.cross_entropy(logits, d.y))
    return query(learner, d)


@case
def index_functions_in_place(learner, d):
    out = learner(d.x) * 1
    out.index_add_(0, torch.tensor([0, 2]), learner(d.x2)[:2])
    out.scatter_(1, d.y[:, None], 0.5)
    out.masked_fill_(out > 1.0, 1.0).clamp_(min=-1)
    buffer = torch.zeros(WAYS, WAYS)
    buffer.index_add_(0, d.y, out)
    buffer.index_put_((torch.tensor([0]),), learner(d.x2)[0], accumulate=True)
    learner.adapt(F.cross_entropy(out, d.y) + (buffer**2).mean())
    return query(learner, d)


@case
def accumulators(learner, d):
    total = torch.zeros(())
    total += F.cross_entropy(learner(d.x), d.y)
    total = total - 0.5 * torch.zeros(3).index_fill_(0, d.y[:1], 1.0) @ learner(d.x)[0]
    other = 0
    for i in range(3):
        other = other + learner(d.x2)[i].logsumexp(0)
        total += other
    total = total + sum([learner(d.x)[i, 0] for i in range(2)])
    learner.adapt(total)
    return query(learner, d)


@case
def an_assignment_to_a_slice_of_an_input(learner, d):
    x = d.x.clone()
    x[0] = d.temperature * d.x2[0]
    learner.adapt(F.cross_entropy(learner(x), d.y))
    return query(learner, d)


@case
def an_outside_tensor_written_to(learner, d):
    weights = torch.cos(d.lam)
    weights *= F.cross_entropy(learner(d.x), d.y, reduction="none")
    learner.adapt(weights.mean())
    return query(learner, d)


@case
def features_of_a_body_written_to(learner, d):
    hidden = d.body(d.x)
    hidden[:, :3] += learner(d.x)
    hidden[0] = d.x2[0]
    learner.adapt(learner(hidden).square().mean() + hidden.square().mean())
    return query(learner, d)


@case
def items_added_to_in_a_buffer_of_zeros(learner, d):
    losses = torch.zeros(2, 3)
    for i in range(3):
        losses[i % 2] += F.cross_entropy(learner(d.x + i), d.y) * d.lam[:3]
        losses[:, 1] *= d.temperature
    learner.adapt(losses.square().mean())
    return query(learner, d)


@case
def views_of_a_buffer_of_zeros(learner, d):
    buffer = torch.zeros(9, WAYS)
    half = buffer[:4]
    half += learner(d.x)[:4]
    buffer[4:].copy_(learner(d.x2)[4:])
    buffer.t()[0].mul_(d.temperature)
    learner.adapt(F.cross_entropy(buffer, d.y) + half.square().mean())
    return query(learner, d)


@case
def running_means_of_losses(learner, d):
    mean = torch.zeros(())
    for _ in range(2):
        loss = F.cross_entropy(learner(d.x), d.y)
        mean = 0.9 * mean.detach() + 0.1 * loss
        learner.adapt(loss * d.temperature + mean)
    return query(learner, d)


@case
def a_detached_tensor_written_to(learner, d):
    weights = torch.softmax(learner(d.x), 1).detach()
    weights[:, 0] += 0.1
    weights /= weights.sum(1, keepdim=True)
    learner.adapt((weights * learner(d.x)).sum() * 0.1 + learner(d.x2).square().mean())
    return query(learner, d)


@case
def a_view_of_a_detached_output_written_to(learner, d):
    out = learner(d.x).detach()
    row = out[0]
    row += learner(d.x2)[0]
    learner.adapt(F.cross_entropy(out, d.y) + learner(d.x).mean())
    return query(learner, d)


@case
def a_view_of_a_target_without_grad_written_to(learner, d):
    with torch.no_grad():
        target = learner(d.x).softmax(1)
        column = target[:, 0]
        column += 0.1
    learner.adapt(((learner(d.x2) - target) ** 2 * d.temperature).mean())
    return query(learner, d)
