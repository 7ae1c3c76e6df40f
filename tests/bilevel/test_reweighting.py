"""``reweighting_step`` against Ren et al.'s Algorithm 1, written down line by line."""

import copy

import pytest
import torch
from several_processes import in_processes
from torch import nn
from torch.nn.functional import cross_entropy

from l2l_evograd import EvoGrad, Exact, Guided, reweighting_step
from l2l_evograd.bilevel.problem import ModuleProblem
from l2l_evograd.checks import InputError

pytestmark = pytest.mark.usefixtures("float64")

RATE = 0.1
SAMPLES, CLEAN, CLASSES = 12, 7, 3
CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def network(*more: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), *more, nn.Tanh(), nn.Linear(8, CLASSES))


def data(seed: int = 1, count: int = SAMPLES) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 5, generator=generator)
    return inputs, torch.randint(CLASSES, (count,), generator=generator)


def losses_on(x, y):
    return lambda view: cross_entropy(view(x), y, reduction="none")


def mean_on(x, y):
    return lambda view: cross_entropy(view(x), y)


def line_by_line(model: nn.Module):
    """Return weights and hypergradient by a step that is written out for each w_i."""
    (x, y), (meta_x, meta_y) = data(), data(2, CLEAN)
    weights = torch.zeros(SAMPLES, requires_grad=True)
    # η = 1, as in the step itself: the weights do not depend on it.
    names, values = zip(*model.named_parameters(), strict=True)
    scores = torch.func.functional_call(model, dict(zip(names, values, strict=True)), x)
    losses = cross_entropy(scores, y, reduction="none")
    grads = torch.autograd.grad((weights * losses).sum(), values, create_graph=True)
    moved = [v - g for v, g in zip(values, grads, strict=True)]
    scores = torch.func.functional_call(
        model, dict(zip(names, moved, strict=True)), meta_x
    )
    (found,) = torch.autograd.grad(cross_entropy(scores, meta_y), weights)
    rectified = (-found).clamp_min(0)
    return rectified / rectified.sum(), found


def step(model, estimator, update="gradient", seed=3, **options):
    (x, y), (meta_x, meta_y) = data(), data(2, CLEAN)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    return reweighting_step(
        *(model, losses_on(x, y), mean_on(meta_x, meta_y), optimizer, SAMPLES),
        estimator=estimator,
        update=update,
        generator=torch.Generator().manual_seed(seed),
        **options,
    )


@pytest.mark.parametrize("estimator", [Exact(), Exact("forward"), Exact("reverse")])
def test_exact_weights_are_those_of_the_algorithm(estimator):
    model = network()
    weights, hypergradient = line_by_line(model)
    found = step(copy.deepcopy(model), estimator)
    torch.testing.assert_close(found.weights, weights, **CLOSE)
    torch.testing.assert_close(found.hypergradient, hypergradient, **CLOSE)
    assert 0 < int((found.weights == 0).sum()) < SAMPLES
    assert float(found.weights.sum()) == pytest.approx(1, abs=1e-12)


def test_the_base_step_uses_the_weights():
    model = network()
    weights, _ = line_by_line(model)
    moved = copy.deepcopy(model)
    found = step(moved, Exact())
    x, y = data()
    losses = losses_on(x, y)(model)
    grads = torch.autograd.grad((weights * losses).sum(), list(model.parameters()))
    steps = zip(model.parameters(), grads, moved.parameters(), strict=True)
    for old, grad, new in steps:
        torch.testing.assert_close(new, old - RATE * grad, **CLOSE)
    torch.testing.assert_close(found.losses, losses.detach(), **CLOSE)
    outer = mean_on(*data(2, CLEAN))(model)
    torch.testing.assert_close(found.outer_loss, outer.detach(), **CLOSE)


@pytest.mark.parametrize("scheme", ["central", "forward"])
def test_guided_comes_close(scheme):
    weights, _ = line_by_line(network())
    found = step(network(), Guided(scheme=scheme, h=1e-5))
    torch.testing.assert_close(found.weights, weights, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rate", [0.0, 7.0])
def test_the_rate_of_the_optimizer_does_not_matter(rate):
    model = network()
    weights, _ = line_by_line(model)
    (x, y), clean = data(), data(2, CLEAN)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    found = reweighting_step(
        *(model, losses_on(x, y), mean_on(*clean), optimizer, SAMPLES),
        estimator=Exact(),
    )
    torch.testing.assert_close(found.weights, weights, **CLOSE)


def test_algorithm_1_gives_the_weights_of_its_population():
    """At w = 0 all candidates have the same loss, so its softmax does not act."""
    population = EvoGrad(4, sigma=1e-5)
    one = step(network(), population)
    two = step(network(), population, update="evolution")
    torch.testing.assert_close(one.weights, two.weights, rtol=1e-3, atol=1e-4)


def test_a_large_population_comes_close():
    weights, _ = line_by_line(network())
    draws = [step(network(), EvoGrad(64), seed=seed) for seed in range(20)]
    _, hypergradient = line_by_line(network())
    all_draws = torch.stack([draw.hypergradient for draw in draws])
    error = all_draws.std(0) / len(draws) ** 0.5
    assert bool(((all_draws.mean(0) - hypergradient).abs() < 4 * error).all())


def test_all_weights_are_0_where_every_sample_raises_the_outer_loss():
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    one = torch.ones(2, 1)
    found = reweighting_step(
        model,
        lambda view: -view(one).squeeze(1),  # a step raises the weight
        lambda view: view(one).mean(),  # which raises this
        optimizer,
        2,
    )
    assert found.weights.tolist() == [0, 0]
    assert model.weight.item() == 1.0


def test_losses_are_computed_once_and_buffers_move_once():
    model = network(nn.BatchNorm1d(8), nn.Dropout(0.5))
    calls = []
    (x, y), clean = data(), data(2, CLEAN)

    def losses(view):
        calls.append(1)
        return losses_on(x, y)(view)

    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    reweighting_step(model, losses, mean_on(*clean), optimizer, SAMPLES)
    assert len(calls) == 1
    assert int(model[1].num_batches_tracked) == 1


@pytest.mark.parametrize(
    "losses, got",
    [
        (lambda view: cross_entropy(view(data()[0]), data()[1]), r"got \(\)"),
        (lambda view: losses_on(*data(1, 4))(view), r"got \(4,\)"),
        (lambda view: 0.0, "got float"),
    ],
)
def test_other_losses_are_refused(losses, got):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=f"one loss for each of 12 samples.*{got}"):
        reweighting_step(model, losses, mean_on(*data(2)), optimizer, SAMPLES)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


UPDATES = pytest.mark.parametrize("update", ["gradient", "evolution"])


@UPDATES
@pytest.mark.parametrize(
    "change",
    [
        lambda outer, model: lambda view: outer(model),
        lambda outer, model: lambda view: outer(view).detach(),
        lambda outer, model: lambda view: torch.tensor(1.0),
    ],
    ids=["of the model itself", "detached", "constant"],
)
def test_an_outer_loss_that_sees_no_step_is_refused(change, update):
    model = network()
    (x, y), clean = data(), data(2, CLEAN)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    outer = change(mean_on(*clean), model)
    with pytest.raises(ValueError, match="outer loss does not depend on the weights"):
        reweighting_step(
            *(model, losses_on(x, y), outer, optimizer, SAMPLES), update=update
        )


@UPDATES
def test_losses_without_gradients_are_refused(update):
    model = network()
    (x, y), clean = data(), data(2, CLEAN)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)

    def losses(view):
        with torch.no_grad():
            return losses_on(x, y)(view)

    with pytest.raises(ValueError, match="does not require grad"):
        reweighting_step(
            *(model, losses, mean_on(*clean), optimizer, SAMPLES), update=update
        )


@pytest.mark.parametrize("estimator", ["exact", "guided"])
def test_a_gradient_that_is_no_number_is_refused(estimator):
    model = network()
    (x, y), clean = data(), data(2, CLEAN)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    before = copy.deepcopy(model.state_dict())

    def outer(view):  # finite, but its gradient is not
        return mean_on(*clean)(view) + (view(x).sum() * 0).sqrt()

    with pytest.raises(InputError, match="gradient .* to be finite"):
        reweighting_step(
            *(model, losses_on(x, y), outer, optimizer, SAMPLES), estimator=estimator
        )
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_steps_with_new_weights_are_counted_as_one_loop():
    """The first 3 steps are checked, although each has a λ of its own."""
    model = network()
    problems = [
        ModuleProblem(model, torch.zeros(SAMPLES, requires_grad=True)) for _ in range(3)
    ]
    assert len({problem.identity for problem in problems}) == 1
    other = ModuleProblem(model, torch.zeros(SAMPLES + 1, requires_grad=True))
    assert other.identity != problems[0].identity


def share_of(rank, group):
    """Return what one of two processes finds on half of the samples."""
    (x, y), clean = data(), data(2, CLEAN)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    found = reweighting_step(
        *(model, losses_on(x[rank::2], y[rank::2]), mean_on(*clean)),
        *(optimizer, SAMPLES // 2),
        estimator=Exact(),
        process_group=group,
    )
    return [found.weights, *(p.detach() for p in model.parameters())]


def test_two_processes_make_the_step_of_one(tmp_path):
    model = network()
    whole = step(model, Exact())
    for rank, found in enumerate(in_processes(tmp_path, 2, share_of)):
        torch.testing.assert_close(found[0], whole.weights[rank::2], **CLOSE)
        for own, one in zip(found[1:], model.parameters(), strict=True):
            torch.testing.assert_close(own, one.detach(), **CLOSE)
