"""Problems whose population may be shared out among processes."""

import torch
from torch import nn

from l2l_evograd import EvoGradMetaOptimizer, bilevel_step, hypergradient

SAMPLES = 6


def numbers(*shape, seed=7):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(noisy):
    """Return the same network at every call, with masks and statistics if ``noisy``."""
    between = [nn.BatchNorm1d(4), nn.Dropout(0.3)] if noisy else []
    model = nn.Sequential(nn.Linear(3, 4), *between, nn.Tanh(), nn.Linear(4, 2))
    with torch.no_grad():
        for position, parameter in enumerate(model.parameters()):
            parameter.copy_(numbers(*parameter.shape, seed=position))
    return model


def steps(count, *problem, **settings):
    """Return the losses and the hypergradients of several bilevel steps."""
    found = []
    for _ in range(count):
        step = bilevel_step(*problem, **settings)
        found += [step.inner_loss, step.outer_loss, *step.hypergradient]
    return found


def learn_online(update, estimator, seed, base_step, shares=(0,), group=None):
    """Return all that two steps on the mean over ``shares`` of the data give."""
    x, meta = numbers(2, SAMPLES, 3), numbers(2, SAMPLES, 3, seed=8)
    y, meta_y = numbers(2, SAMPLES, 2, seed=9), numbers(2, SAMPLES, 2, seed=10)
    # Other processes' data may have other masks and statistics.
    model = network(noisy=len(shares) == 1 and group is None)
    weights = torch.linspace(-1, 1, 2 * SAMPLES).view(2, SAMPLES).requires_grad_()
    temperature = torch.ones((), requires_grad=True)

    def inner(view):
        errors = [
            weights[p].sigmoid() * (view(x[p]) - y[p]).square().sum(1) for p in shares
        ]
        return torch.stack(errors).mean()

    def outer(view):
        errors = [(temperature * view(meta[p]) - meta_y[p]).square() for p in shares]
        return torch.stack(errors).mean()

    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    hyper = torch.optim.SGD([weights, temperature], lr=10.0)
    generator = torch.Generator().manual_seed(seed)
    found = steps(
        2,
        *(model, inner, outer, base, hyper),
        update=update,
        estimator=estimator,
        base_step=base_step,
        generator=generator,
        process_group=group,
        allow_unused=True,
    )
    return [*found, *model.parameters(), *model.buffers(), weights, temperature]


def learn_after(update, estimator, seed):
    return learn_online(update, estimator, seed, "after")


def learn_before(update, estimator, seed):
    return learn_online(update, estimator, seed, "before")


def call_function(update, estimator, seed, steps=2, first_order=False):
    """Return what two inner steps give, the second of them with its curvature."""
    x, y = numbers(SAMPLES, 3), numbers(SAMPLES, 2, seed=8)
    theta = {"weight": numbers(3, 2, seed=9), "bias": numbers(2, seed=10)}

    def errors(params):
        hidden = torch.dropout(x @ params["weight"] + params["bias"], 0.3, True)
        return (hidden.tanh() - y).square().sum(1)

    found = hypergradient(
        lambda params, lam: (lam.sigmoid() * errors(params)).mean(),
        lambda params, lam: errors(params).mean(),
        theta,
        torch.linspace(-1, 1, SAMPLES),
        lr=0.1,
        update=update,
        estimator=estimator,
        steps=steps,
        first_order=first_order,
        generator=torch.Generator().manual_seed(seed),
    )
    return [found.gradients, *found.params.values(), found.outer_loss]


def adapt_learners(update, estimator, seed):
    """Return the gradients of λ and of the initial weights after two tasks."""
    model = network(noisy=True)
    weights = torch.linspace(-1, 1, SAMPLES).requires_grad_()
    meta = EvoGradMetaOptimizer(
        model,
        0.1,
        first_order=False,
        hyperparameters=[weights],
        update=update,
        estimator=estimator,
        generator=torch.Generator().manual_seed(seed),
    )
    total = torch.zeros(())
    for task in range(2):
        learner = meta.clone()
        x = numbers(2, SAMPLES, 3, seed=20 + task)
        for _ in range(2):
            learner.adapt((weights.sigmoid() * learner(x[0]).square().sum(1)).mean())
        total = total + learner(x[1]).cos().mean()
    total.backward()
    return [total, weights.grad, *(p.grad for p in model.parameters())]


ENTRIES = [learn_after, learn_before, call_function, adapt_learners]
