"""Functions whose outputs do not know where they came from."""

import pytest
import torch
from siblings import X, Y, hold, mse, named_variants, plain_variants
from torch import distributions, nn
from torch.nn import functional as F

pytestmark = [
    pytest.mark.usefixtures("float64"),
    # torch.func.jvp compiles what it needs with it.
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated"),
]


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        self.sigma = nn.Parameter(torch.linspace(-0.5, 0.2, 3))

    def forward(self, x):
        return self.mean(x), self.sigma

    def density(self, x):
        return distributions.Normal(self.mean(x), self.sigma.exp())


def normal(learner, x, y):
    return -learner.density(x).log_prob(y).mean()


def independent(learner, x, y):
    mean, sigma = learner(x)
    return (
        -distributions.Independent(distributions.Laplace(mean, sigma.exp()), 1)
        .log_prob(y)
        .mean()
    )


def multivariate(learner, x, y):
    mean, sigma = learner(x)
    scale = torch.diag(sigma.exp())
    return -distributions.MultivariateNormal(mean, scale_tril=scale).log_prob(y).mean()


def categorical(learner, x, y):
    mean, sigma = learner(x)
    logits = mean * sigma.exp()
    return -distributions.Categorical(logits=logits).log_prob(y.argmax(1)).mean()


def divergence(learner, x, y):
    mean, sigma = learner(x)
    new = distributions.Normal(mean, sigma.exp())
    old = distributions.Normal(mean.detach() + 0.1, torch.ones(3))
    return distributions.kl_divergence(old, new).mean() + new.entropy().sum()


def reparametrised_sample(learner, x, y):
    return mse(learner.density(x).rsample(), y)


def score_of_a_sample(learner, x, y):
    density = learner.density(x)
    action = density.sample()
    return -(density.log_prob(action) * (y - action).sum(1, keepdim=True)).mean()


def mixture(learner, x, y):
    mean, sigma = learner(x)
    parts = distributions.Normal(mean, sigma.exp())
    choice = distributions.Categorical(logits=sigma.expand(len(x), 3))
    return -distributions.MixtureSameFamily(choice, parts).log_prob(y[:, 0]).mean()


def vmap_over_rows(learner, x, y):
    mean, sigma = learner(x)
    distance = torch.vmap(lambda a, b: ((a - b) * sigma).square().sum())
    return distance(mean, y).mean()


def vmap_over_pairs(learner, x, y):
    mean, _ = learner(x)
    kernel = torch.vmap(torch.vmap(torch.dot, (None, 0)), (0, None))
    return (kernel(mean, mean) - kernel(y, y)).square().mean()


def jacobian_of_the_output(learner, x, y):
    def one(z):
        return learner(z[None])[0][0]

    return torch.func.vmap(torch.func.jacrev(one))(x).square().mean() + normal(
        learner, x, y
    )


def forward_mode_of_the_output(learner, x, y):
    mean, moved = torch.func.jvp(lambda z: learner(z)[0], (x,), (torch.ones_like(x),))
    return mse(mean, y) + moved.square().mean()


def gradient_penalty(learner, x, y):
    x = x.clone().requires_grad_()
    mean, _ = learner(x)
    (slope,) = torch.autograd.grad(mean.square().sum(), x, create_graph=True)
    return mse(mean, y) + slope.square().mean()


def gradient_of_an_output_as_a_constant(learner, x, y):
    x = x.clone().requires_grad_()
    mean, _ = learner(x)
    (slope,) = torch.autograd.grad(mean.sum(), x, retain_graph=True)
    return mse(learner(x.detach() + 0.1 * slope.sign())[0], y) + mse(mean, y)


def solved(learner, x, y):
    mean, sigma = learner(x)
    gram = mean.t() @ mean + torch.diag(sigma.exp())
    return mse(mean @ torch.linalg.solve(gram, mean.t() @ y), y)


def broadcast_and_split(learner, x, y):
    mean, sigma = torch.broadcast_tensors(*learner(x))
    rows = [m * s for m, s in zip(mean, sigma, strict=True)]
    return mse(torch.stack(rows).unbind(1)[0], y[:, 0])


def written_into_numbers(learner, x, y):
    mean, _ = learner(x)
    scale = float(mean.detach().abs().mean()) + mean.detach().max().item()
    return mse(mean / scale, y)


def through_a_list(learner, x, y):
    mean, sigma = learner(x)
    lengths = [len([v for v in row if v > 0]) + 1 for row in mean.tolist()]
    return mse(mean / torch.tensor(lengths)[:, None] * sigma, y)


def own_function(learner, x, y):
    mean, sigma = learner(x)
    return mse(Halved.apply(mean) * sigma, y)


def sparse_product(learner, x, y):
    mean, sigma = learner(x)
    adjacency = torch.eye(len(x)).roll(1, 0).to_sparse()
    return mse(torch.sparse.mm(adjacency, mean) * sigma, y)


def gumbel(learner, x, y):
    mean, sigma = learner(x)
    return mse(F.gumbel_softmax(mean * sigma.exp()), y)


class Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square() / 2

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * x


LOSSES = [
    normal,
    independent,
    multivariate,
    categorical,
    divergence,
    reparametrised_sample,
    score_of_a_sample,
    mixture,
    vmap_over_rows,
    vmap_over_pairs,
    jacobian_of_the_output,
    forward_mode_of_the_output,
    gradient_penalty,
    gradient_of_an_output_as_a_constant,
    solved,
    broadcast_and_split,
    written_into_numbers,
    through_a_list,
    own_function,
    sparse_product,
    gumbel,
]
losses = pytest.mark.parametrize("loss", LOSSES)


@plain_variants
@losses
def test_losses_without_a_hyperparameter(loss, variant):
    def program(make):
        model = Policy()
        learner = make(model, allow_unused=True).clone()
        for _ in range(2):
            learner.adapt(loss(learner, X[:6], Y[:6]))
        return loss(learner, X[6:], Y[6:]), list(model.parameters())

    hold(program, variant)


@named_variants
@losses
@pytest.mark.parametrize("given", ["a tensor", "a callable"])
def test_losses_with_a_hyperparameter(loss, given, variant):
    def program(make):
        model, lam = Policy(), torch.tensor(0.3, requires_grad=True)
        learner = make(model, hyperparameters=lam, allow_unused=True).clone()

        def inner(net):
            return lam.exp() * loss(net, X[:6], Y[:6])

        for _ in range(2):
            learner.adapt(inner if given == "a callable" else inner(learner))
        return loss(learner, X[6:], Y[6:]), [lam]

    hold(program, variant)


def test_most_of_them_are_not_refused():
    equal = 0
    for loss in LOSSES:
        for variant in named_variants.args[1]:

            def program(make, loss=loss):
                model, lam = Policy(), torch.tensor(0.3, requires_grad=True)
                learner = make(model, hyperparameters=lam, allow_unused=True).clone()
                learner.adapt(lam.exp() * loss(learner, X[:6], Y[:6]))
                return loss(learner, X[6:], Y[6:]), [lam]

            equal += hold(program, variant)
    assert equal > 0.7 * len(LOSSES) * len(named_variants.args[1])
