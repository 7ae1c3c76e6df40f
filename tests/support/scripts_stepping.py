"""Ways to adapt learners in several steps, and several learners."""

import torch
from scripts import WAYS, cases, query
from torch import nn
from torch.nn import functional as F

STEPPING, case = cases()


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
