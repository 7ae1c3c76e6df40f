import pytest
import torch
from by_hand import ByHand, largest_gap, meta_gradients
from marked import Square, data
from torch import nn
from torch.nn import functional as F

from l2l_evograd import EvoGrad, EvoGradMetaOptimizer, Exact, Guided, hypergradient
from l2l_evograd.recording import Recording, Wrapper
from l2l_evograd.replay import ReplayTensor, plain

pytestmark = pytest.mark.usefixtures("float64")


def both(run, model, tensors, lr=0.1, **settings):
    """Return the gradients through the package and written out."""
    found = meta_gradients(EvoGradMetaOptimizer(model, lr, **settings), run, tensors)
    first_order = settings.get("first_order", False)
    expected = meta_gradients(ByHand(model, lr, first_order), run, tensors)
    assert abs(found[0] - expected[0]) < 1e-12
    return found[1], expected[1]


def test_a_wrapper_answers_for_its_module():
    model, x, _ = data()
    wrapper = Wrapper(model.eval())
    assert wrapper.head is model.head and not wrapper.training
    assert torch.equal(wrapper(x), 0.5 * model(x))
    assert wrapper.passes == model.passes == 2
    with pytest.raises(AttributeError, match="no attribute 'nowhere'"):
        _ = wrapper.nowhere


def test_a_recording_has_the_values_of_the_module_and_its_own_buffers():
    model, x, _ = data()
    names = [n for n, _ in model.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in model.parameters()]
    recording = Recording(model, names, values)
    torch.manual_seed(1)
    found = recording.call(x)
    assert isinstance(found, ReplayTensor)
    assert model.body[1].num_batches_tracked == 0
    torch.manual_seed(1)
    assert torch.equal(plain(found), model(x))
    moved = [torch.zeros_like(v).requires_grad_() for v in values]
    recording.move(moved)
    assert torch.equal(plain(recording.call(x)), torch.zeros(7, 3))
    grads = torch.autograd.grad(recording.call(x).sum(), moved, allow_unused=True)
    assert grads[-1] is not None


def test_the_marks_of_forward_passes_stay_with_the_learner():
    model, x, y = data()
    meta = EvoGradMetaOptimizer(model, 0.1)
    learner = meta.clone()
    learner.adapt(F.cross_entropy(learner(x), y))
    F.cross_entropy(learner(x), y).backward()
    assert (model.passes, model.outputs, model.last) == (0, [], None)
    assert learner.passes == 2  # computing again leaves no marks
    assert learner.outputs == [(7, 3), (7, 3)] and learner.last == (7, 4)


@pytest.mark.parametrize("first_order", [False, True])
def test_every_pass_is_computed_again_from_the_state_it_began_with(first_order):
    model, x, y = data()

    def run(meta):
        learner = meta.clone()
        for _ in range(2):
            out = learner(x) + 0.5 * learner(2 * x)  # odd and even passes differ
            learner.adapt(F.cross_entropy(out, y))
        return F.cross_entropy(learner(x), y)

    found, expected = both(
        run, model, list(model.parameters()), first_order=first_order
    )
    assert largest_gap(found, expected) < 1e-10


def test_a_switch_to_eval_between_loss_and_backward_changes_nothing():
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
    found, expected = both(run, model, params)
    assert largest_gap(found, expected) < 1e-10


@pytest.mark.parametrize(
    "settings",
    [
        {"estimator": Exact()},
        {"estimator": Exact(), "first_order": False},
        {"estimator": Guided()},
        {"estimator": Guided(scheme="forward")},
        {"estimator": EvoGrad(4, sigma=0.01)},
        {"estimator": EvoGrad(4, sigma=0.01), "update": "evolution"},
        {"update": "evolution", "first_order": False},
    ],
    ids=lambda s: "-".join(map(str, s.values())),
)
@pytest.mark.parametrize("form", ["followed callable", "callable called again"])
def test_all_forms_of_the_inner_loss_give_the_same(settings, form):
    found = []
    for callable_form in (False, True):
        model, x, y = data()
        lam = torch.zeros(7, requires_grad=True)
        generator = torch.Generator().manual_seed(5)
        meta = EvoGradMetaOptimizer(
            model, 0.1, hyperparameters=lam, generator=generator, **settings
        )

        def loss_of(view, x=x, y=y, lam=lam, called_again=callable_form):
            losses = F.cross_entropy(view(x), y, reduction="none")
            weights = torch.sigmoid(lam + losses.detach())
            if called_again and form == "callable called again":
                return (weights.sqrt() * Square.apply(losses)).mean()
            return (weights.sqrt() * losses**2).mean()

        def run(meta, loss_of=loss_of, use=callable_form, x=x, y=y):
            learner = meta.clone()
            for _ in range(2):
                learner.adapt(loss_of if use else loss_of(learner))
            return F.cross_entropy(learner(x), y)

        tensors = [*model.parameters(), lam]
        found.append([*meta_gradients(meta, run, tensors)[1], *model.buffers()])
    assert largest_gap(*found) < 1e-10
    assert found[0][-1] is not None


def test_a_callable_that_can_be_followed_is_called_once():
    model, x, y = data()
    calls = []

    def loss_of(view):
        calls.append(view)
        return F.cross_entropy(view(x), y)

    learner = EvoGradMetaOptimizer(model, 0.1).clone()
    learner.adapt(loss_of)
    F.cross_entropy(learner(x), y).backward()
    assert len(calls) == 1 and calls[0] is learner


def test_a_callable_called_again_leaves_learner_and_random_state_alone():
    model, x, y = data()
    learner = EvoGradMetaOptimizer(model, 0.1).clone()
    learner.adapt(lambda view: Square.apply(view(x)).mean())
    loss = F.cross_entropy(learner(x), y)
    buffers = [b.clone() for b in learner.module.buffers()]
    random = torch.get_rng_state()
    loss.backward()
    assert all(map(torch.equal, buffers, learner.module.buffers()))
    assert torch.equal(random, torch.get_rng_state())
    assert learner.passes == 2


@pytest.mark.parametrize("hidden", [False, True], ids=["followed", "called again"])
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


def test_a_sibling_may_teach_but_not_a_clone_of_the_learner():
    model, x, y = data()
    meta = EvoGradMetaOptimizer(model, 0.1)
    learner = meta.clone()
    teacher = learner.clone()
    loss = F.mse_loss(learner(x), teacher(x).softmax(1))
    with pytest.raises(TypeError, match="depends on the weights by a way"):
        learner.adapt(loss)
    learner.adapt(F.mse_loss(learner(x), teacher(x).detach().softmax(1)))
    sibling = meta.clone()
    learner.adapt(F.mse_loss(learner(x), sibling(x).softmax(1)))


def test_a_loss_of_the_original_is_refused():
    model, x, y = data()
    meta = EvoGradMetaOptimizer(model, 0.1)
    with pytest.raises(TypeError, match="ordinary tensor.*pass a callable"):
        meta.clone().adapt(F.cross_entropy(meta(x), y))
    with pytest.raises(TypeError, match="call learner = meta.clone"):
        meta.adapt(F.cross_entropy(meta(x), y))


def test_a_loss_of_other_weights_is_refused():
    model, x, y = data()
    meta = EvoGradMetaOptimizer(model, 0.1)
    learner, other = meta.clone(), meta.clone()
    old = F.cross_entropy(learner(x), y)
    learner.adapt(F.cross_entropy(learner(x), y))
    for loss in (old, F.cross_entropy(other(x), y)):
        with pytest.raises(ValueError, match="does not depend on the learner's prese"):
            learner.adapt(loss)


def test_a_loss_without_gradients_is_refused():
    model, x, y = data()
    learner = EvoGradMetaOptimizer(model, 0.1).clone()
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
    before = [plain(p).detach().clone() for p in learner.parameters()]
    with pytest.raises(ValueError, match="expected the inner loss to be a scalar"):
        learner.adapt(learner(x))
    assert all(map(torch.equal, before, map(plain, learner.parameters())))
    learner.adapt(F.cross_entropy(learner(x), y))


def test_modes_set_on_a_view_do_not_reach_the_model():
    model, x, y = data()
    lam = torch.ones((), requires_grad=True)
    seen = []

    def inner_loss(view):
        view.eval()
        seen.append(view.training)
        return lam * F.cross_entropy(view(x), y)

    def outer_loss(view):
        view.eval()
        view.body[2].p = 0.9
        view.note = "kept by the view"
        return F.cross_entropy(view(x), y)

    hypergradient(inner_loss, outer_loss, model, lam, lr=0.1, estimator="exact")
    assert seen == [False] and model.training and model.body[1].training
    assert model.body[2].p == 0.3 and not hasattr(model, "note")


def test_modes_set_on_a_view_are_set_again_when_the_loss_is_called_again():
    def gradient(square):
        model, x, y = data()
        lam = torch.ones((), requires_grad=True)

        def inner_loss(view):
            view.eval()
            return lam * square(view(x)).mean()

        def outer_loss(view):
            return F.cross_entropy(view.eval()(x), y)

        found = hypergradient(
            inner_loss, outer_loss, model, lam, lr=0.1, estimator="exact"
        )
        return found.gradients

    assert abs(gradient(Square.apply) - gradient(torch.square)) < 1e-12
