import pytest
import torch
from by_hand import ByHand, largest_gap, meta_gradients
from marked import Square, data
from torch import nn
from torch.nn import functional as F

from l2l_evograd import EvoGrad, EvoGradMetaOptimizer, Exact, Guided

pytestmark = pytest.mark.usefixtures("float64")


def both(run, model, tensors, lr=0.1, **settings):
    """Return the gradients through the package and written out."""
    found = meta_gradients(EvoGradMetaOptimizer(model, lr, **settings), run, tensors)
    first_order = settings.get("first_order", False)
    expected = meta_gradients(ByHand(model, lr, first_order), run, tensors)
    assert abs(found[0] - expected[0]) < 1e-12
    return found[1], expected[1]


AGAIN = pytest.mark.parametrize("memory", ["auto", "recompute"])


@AGAIN
def test_the_marks_of_forward_passes_stay_with_the_learner(memory):
    model, x, y = data()
    meta = EvoGradMetaOptimizer(model, 0.1, memory=memory)
    learner = meta.clone()
    learner.adapt(F.cross_entropy(learner(x), y))
    F.cross_entropy(learner(x), y).backward()
    assert (model.passes, model.outputs, model.last) == (0, [], None)
    assert learner.passes == 2  # computing again leaves no marks
    assert learner.outputs == [(7, 3), (7, 3)] and learner.last == (7, 4)


@pytest.mark.parametrize(
    "settings", [{}, {"first_order": True}, {"memory": "recompute"}]
)
def test_every_pass_is_computed_from_the_state_it_began_with(settings):
    model, x, y = data()

    def run(meta):
        learner = meta.clone()
        for _ in range(2):
            out = learner(x) + 0.5 * learner(2 * x)  # odd and even passes differ
            learner.adapt(F.cross_entropy(out, y))
        return F.cross_entropy(learner(x), y)

    found, expected = both(run, model, list(model.parameters()), **settings)
    assert largest_gap(found, expected) < 1e-10


@AGAIN
def test_a_switch_to_eval_between_loss_and_backward_changes_nothing(memory):
    model, x, y = data()

    def run(meta):
        learner = meta.clone()
        learner.adapt(F.cross_entropy(learner(x), y))
        learner.eval()
        loss = F.cross_entropy(learner(x), y)
        learner.train()
        learner.head.bias = None
        return loss

    params = list(model.parameters())
    found, expected = both(run, model, params, memory=memory)
    assert largest_gap(found, expected) < 1e-10


SETTINGS = pytest.mark.parametrize(
    "settings",
    [
        {"estimator": Exact()},
        {"estimator": Exact(), "memory": "recompute"},
        {"estimator": Exact(), "first_order": False, "memory": "recompute"},
        {"estimator": Exact(), "first_order": False},
        {"estimator": Guided()},
        {"estimator": Guided(scheme="forward")},
        {"estimator": EvoGrad(4, sigma=0.01)},
        {"estimator": EvoGrad(4, sigma=0.01), "update": "evolution"},
        {"update": "evolution", "first_order": False},
    ],
    ids=lambda s: "-".join(map(str, s.values())),
)


@SETTINGS
def test_a_callable_gives_what_its_loss_gives(settings):
    found = []
    for as_callable in (False, True):
        model, x, y = data()
        lam = torch.zeros(7, requires_grad=True)
        generator = torch.Generator().manual_seed(5)
        meta = EvoGradMetaOptimizer(
            model,
            0.1,
            hyperparameters=lam,
            generator=generator,
            check="always",
            **settings,
        )

        def loss_of(view, x=x, y=y, lam=lam):
            losses = F.cross_entropy(view(x), y, reduction="none")
            weights = torch.sigmoid(lam + losses.detach())
            return (weights.sqrt() * losses**2).mean()

        def run(meta, loss_of=loss_of, use=as_callable, x=x, y=y):
            learner = meta.clone()
            for _ in range(2):
                learner.adapt(loss_of if use else loss_of(learner))
            return F.cross_entropy(learner(x), y)

        tensors = [*model.parameters(), lam]
        found.append([*meta_gradients(meta, run, tensors)[1], *model.buffers()])
    assert largest_gap(*found) < 1e-10
    assert bool(found[0][len(tensors) - 1].any())


@SETTINGS
def test_a_callable_is_called_once_with_the_learner(settings):
    model, x, y = data()
    lam = torch.zeros(7, requires_grad=True)
    meta = EvoGradMetaOptimizer(model, 0.1, hyperparameters=lam, **settings)
    learner = meta.clone()
    calls = []

    def loss_of(view):
        calls.append(view)
        losses = F.cross_entropy(view(x), y, reduction="none")
        return (torch.sigmoid(lam) * losses).mean()

    learner.adapt(loss_of)
    loss = F.cross_entropy(learner(x), y)
    buffers = [b.clone() for b in learner.module.buffers()]
    random = torch.get_rng_state()
    loss.backward()
    assert calls == [learner] and learner.passes == 2
    assert all(map(torch.equal, buffers, learner.module.buffers()))
    assert torch.equal(random, torch.get_rng_state())
    assert bool(lam.grad.any())


@pytest.mark.parametrize("hidden", [False, True], ids=["recorded", "hidden"])
def test_outside_tensors_in_a_callable_get_the_gradients_of_maml(hidden):
    model, x, y = data()
    temperature = torch.tensor(1.5, requires_grad=True)
    body = nn.Linear(4, 4)

    def run(meta):
        learner = meta.clone()

        def loss_of(view):
            out = Square.apply(view(body(x))) if hidden else view(body(x)) ** 2
            return F.cross_entropy(out * temperature, y)

        learner.adapt(loss_of)
        return F.cross_entropy(learner(body(x)), y)

    tensors = [*model.parameters(), *body.parameters(), temperature]
    found, expected = both(run, model, tensors)
    assert largest_gap(found, expected) < 1e-10


def test_features_computed_before_a_callable_get_the_gradients_of_maml():
    model, x, y = data()
    body = nn.Linear(4, 4)

    def run(meta):
        learner = meta.clone()
        features = body(x)
        for _ in range(2):
            learner.adapt(lambda view: Square.apply(view(features)).mean())
        return F.cross_entropy(learner(features), y)

    found, expected = both(run, model, [*model.parameters(), *body.parameters()])
    assert largest_gap(found, expected) < 1e-10


def test_a_clone_of_the_learner_may_teach_it():
    model, x, y = data()
    model.body[2].p = 0.0

    def run(meta):
        learner = meta.clone()
        learner.adapt(F.cross_entropy(learner(x), y))
        teacher = learner.clone()
        learner.adapt(F.mse_loss(learner(x), teacher(x + 1).softmax(1)))
        return F.cross_entropy(learner(x), y)

    found, expected = both(run, model, list(model.parameters()))
    assert largest_gap(found, expected) < 1e-10
    # Both sides would move: it cannot be looked at with other weights of the learner.
    with pytest.raises(TypeError, match="depends on the weights in a way that was not"):
        run(EvoGradMetaOptimizer(model, 0.1, memory="recompute"))


@pytest.mark.parametrize("teacher", ["held constant", "a sibling"])
def test_others_may_teach_a_learner_that_is_looked_at_again(teacher):
    model, x, y = data()
    model.body[2].p = 0.0

    def run(meta):
        learner = meta.clone()
        if teacher == "a sibling":
            target = meta.clone()(x).softmax(1)
        else:
            target = learner.clone()(x).detach().softmax(1)
        learner.adapt(F.mse_loss(learner(x + 1), target))
        return F.cross_entropy(learner(x), y)

    params = list(model.parameters())
    found, expected = both(run, model, params, memory="recompute")
    assert largest_gap(found, expected) < 1e-10


def test_a_loss_of_the_original_is_refused():
    model, x, y = data()
    meta = EvoGradMetaOptimizer(model, 0.1)
    with pytest.raises(ValueError, match="does not depend on the learner's present"):
        meta.clone().adapt(F.cross_entropy(meta(x), y))
    with pytest.raises(TypeError, match="call learner = meta.clone"):
        meta.adapt(F.cross_entropy(meta(x), y))


@AGAIN
def test_a_loss_of_other_weights_is_refused(memory):
    model, x, y = data()
    meta = EvoGradMetaOptimizer(model, 0.1, memory=memory)
    learner, other = meta.clone(), meta.clone()
    old = F.cross_entropy(learner(x), y)
    learner.adapt(F.cross_entropy(learner(x), y))
    for loss in (old, F.cross_entropy(other(x), y)):
        with pytest.raises(ValueError, match="does not depend on the learner's prese"):
            learner.adapt(loss)


@AGAIN
def test_a_loss_without_gradients_is_refused(memory):
    model, x, y = data()
    learner = EvoGradMetaOptimizer(model, 0.1, memory=memory).clone()
    with torch.no_grad():
        loss = F.cross_entropy(learner(x), y)
    for bad in (loss, F.cross_entropy(learner(x), y).detach()):
        with pytest.raises(ValueError, match="does not require grad"):
            learner.adapt(bad)
    with torch.inference_mode():
        loss = F.cross_entropy(learner(x), y)
    with pytest.raises(ValueError, match=r"does not require grad.*inference_mode"):
        learner.adapt(loss)


@pytest.mark.parametrize(
    ("bad", "error", "match"),
    [
        (1.0, TypeError, "scalar tensor, got float"),
        (None, TypeError, "scalar tensor, got NoneType"),
        (lambda view: 3, TypeError, "scalar tensor, got int"),
        (lambda view: view(torch.ones(2, 4)), ValueError, "got a tensor of shape"),
        (lambda view: view(torch.ones(2, 4)).mean() / 0, ValueError, "to be finite"),
    ],
)
def test_what_is_no_loss_is_refused(bad, error, match):
    learner = EvoGradMetaOptimizer(data()[0], 0.1).clone()
    with pytest.raises(error, match=match):
        learner.adapt(bad)


def test_a_refused_loss_leaves_the_weights_where_they_were():
    model, x, y = data()
    learner = EvoGradMetaOptimizer(model, 0.1).clone()
    before = [p.detach().clone() for p in learner.parameters()]
    with pytest.raises(ValueError, match="expected the inner loss to be a scalar"):
        learner.adapt(learner(x))
    assert all(map(torch.equal, before, learner.parameters()))
    learner.adapt(F.cross_entropy(learner(x), y))
