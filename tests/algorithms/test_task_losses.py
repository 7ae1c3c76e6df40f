"""All tasks at once are the loop over the tasks."""

import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from zoo import ZOO

from l2l_evograd import (
    EvoGrad,
    EvoGradMetaOptimizer,
    Exact,
    Guided,
    add_feature_transforms,
    feature_transforms,
)
from l2l_evograd.experiments.from_learn2learn import l2l

TASKS, SAMPLES, WAYS = 5, 6, 3
DOUBLE = {"dtype": torch.float64}


def meta_batch(*shape, tasks=TASKS):
    torch.manual_seed(7)
    x, xq = torch.randn(2, tasks, SAMPLES, *(shape or (6,)), **DOUBLE)
    y = torch.stack([torch.randperm(SAMPLES) % WAYS for _ in range(tasks)])
    return (x, y), (xq, y.flip(1))


def loop(meta, loss, support, query, steps):
    """The same as task_losses, task by task."""
    losses = []
    for x, y, xq, yq in zip(*support, *query, strict=True):
        learner = meta.clone()
        for _ in range(steps):
            learner.adapt(loss(learner(x), y))
        losses.append(loss(learner(xq), yq))
    return torch.stack([loss.as_subclass(torch.Tensor) for loss in losses])


def at_once(meta, loss, support, query, steps):
    return meta.task_losses(loss, support, query, steps=steps)


def in_chunks(meta, loss, support, query, steps):
    return meta.task_losses(loss, support, query, steps=steps, chunk_size=2)


def found_by(way, model, steps=3, data=None, weighted=False, **settings):
    """Losses and all gradients, in the way given."""
    torch.manual_seed(1)
    model = model().double()
    lam = torch.linspace(0.5, 1.5, SAMPLES, **DOUBLE).requires_grad_()

    def loss(outputs, labels):
        return (lam * F.cross_entropy(outputs, labels, reduction="none")).mean()

    if weighted:
        settings = {"hyperparameters": [lam], **settings}
    meta = EvoGradMetaOptimizer(
        model, 0.1, generator=torch.Generator().manual_seed(3), check="always",
        **settings,
    )  # fmt: skip
    before = [b.clone() for b in model.buffers()]
    losses = way(meta, loss, *(data or meta_batch()), steps)
    losses.mean().backward()
    assert all(map(torch.equal, before, model.buffers()))
    grads = [p.grad for p in [*model.parameters(), lam]]
    return [losses.detach(), *(g for g in grads if g is not None)]


def assert_equal(found, expected):
    assert len(found) == len(expected)
    scale = max(float(t.abs().max()) for t in expected[1:])
    assert scale > 0
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).abs().max()) <= 1e-10 * max(scale, 1e-3)


def small():
    layers = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, WAYS)]
    return nn.Sequential(*layers)


# torch.func.vmap cannot map over these.
REFUSED = {"LSTM", "LSTM, two layers, dropout", "GRU", "spectral norm"}
RANDOM = {name for name in ZOO if "dropout" in name} | {"transformer"}


# torch.func.vmap says so where it calls an operation for one task after the other.
slow = pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")


@slow
@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("name", sorted(set(ZOO) - RANDOM - REFUSED))
def test_every_module_of_the_zoo_gets_the_gradients_of_the_loop(name, first_order):
    found, expected = (
        found_by(way, ZOO[name], first_order=first_order) for way in (at_once, loop)
    )
    assert_equal(found, expected)


SETTINGS = {
    "first order": {"first_order": True},
    "second order": {"first_order": False},
    "graphs kept": {"first_order": False, "memory": "graph"},
    "computed again": {"first_order": False, "memory": "recompute"},
    "computed again from some point": {"first_order": False, "memory_limit": 2000},
    "exact": {"estimator": "exact"},
    "exact, forward": {"estimator": Exact("forward")},
    "exact, forward, second order": {
        "estimator": Exact("forward"),
        "first_order": False,
    },
    "guided": {"estimator": Guided()},
    "guided, second order": {"estimator": Guided(), "first_order": False},
    "guided, forward": {"estimator": Guided(scheme="forward")},
    "evograd": {"estimator": EvoGrad(4)},
    "evograd, orthogonal": {"estimator": EvoGrad(4, sampling="orthogonal")},
    "evolution": {"update": "evolution", "estimator": EvoGrad(4, sigma=0.1)},
    "evolution, second order": {
        "update": "evolution",
        "estimator": EvoGrad(4, sigma=0.1),
        "first_order": False,
    },
}


@pytest.mark.parametrize("weighted", [False, True], ids=["no lambda", "lambda"])
@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_gets_the_gradients_of_the_loop(name, weighted):
    settings = SETTINGS[name]
    expected = found_by(loop, small, weighted=weighted, **settings)
    for way in (at_once, in_chunks):
        found = found_by(way, small, weighted=weighted, **settings)
        assert_equal(found, expected)


@pytest.mark.parametrize("steps", [0, 1])
def test_few_steps_are_those_of_the_loop(steps):
    found, expected = (found_by(way, small, steps) for way in (at_once, loop))
    assert_equal(found, expected)


@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("estimator", ["exact", Exact("forward"), "guided"])
def test_feature_wise_transforms_are_those_of_the_loop(noisy, estimator):
    def way_of(way):
        torch.manual_seed(2)
        model = add_feature_transforms(l2l.vision.models.CNN4(3, 4, embedding_size=16))
        model.double()
        lam = feature_transforms(model)
        if not noisy:  # softplus is 0 there, so that the layers change nothing
            for theta in lam.parameters():
                nn.init.constant_(theta, -1e3)
        meta = EvoGradMetaOptimizer(
            model, 0.1, hyperparameters=lam, estimator=estimator, check="always"
        )
        torch.manual_seed(3)
        losses = way(meta, F.cross_entropy, *meta_batch(3, 32, 32, tasks=2), 2)
        losses.mean().backward()
        return [losses.detach(), *(p.grad for p in model.parameters())]

    found = way_of(at_once)
    if noisy:
        assert all(t.isfinite().all() and t.any() for t in found)
    else:
        assert_equal(found, way_of(loop))


def test_learned_rates_are_those_of_the_loop():
    def way_of(way):
        torch.manual_seed(1)
        model = small().double()
        rates = [nn.Parameter(torch.full_like(p, 0.1)) for p in model.parameters()]
        rates[0] = nn.Parameter(torch.full((6,), 0.1, **DOUBLE))
        meta = EvoGradMetaOptimizer(model, rates)
        losses = way(meta, F.cross_entropy, *meta_batch(), 2)
        losses.mean().backward()
        return [losses.detach(), *(p.grad for p in meta.parameters())]

    assert_equal(way_of(at_once), way_of(loop))


def test_models_of_learn2learn_are_those_of_the_loop():
    data = meta_batch(1, 28, 28, tasks=3)
    found, expected = (
        found_by(way, lambda: l2l.vision.models.OmniglotCNN(3, 8), 2, data)
        for way in (at_once, loop)
    )
    assert_equal(found, expected)


def test_in_bfloat16_the_losses_are_close_to_the_loop():
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = (found_by(way, small) for way in (at_once, loop))
    assert torch.allclose(found[0], expected[0], rtol=0.05)


def test_features_from_outside_get_the_gradients_of_the_loop():
    def way_of(way, first_order):
        torch.manual_seed(1)
        body, head = nn.Linear(6, 4).double(), nn.Linear(4, WAYS).double()
        meta = EvoGradMetaOptimizer(head, 0.1, first_order=first_order)
        (x, y), (xq, yq) = meta_batch()
        losses = way(meta, F.cross_entropy, (body(x), y), (body(xq), yq), 2)
        losses.mean().backward()
        return [losses.detach(), body.weight.grad, head.weight.grad]

    for first_order in (True, False):
        assert_equal(way_of(at_once, first_order), way_of(loop, first_order))


def test_random_numbers_differ_between_tasks_and_are_repeated_by_their_seed():
    meta = EvoGradMetaOptimizer(nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 3)), 0.1)
    (x, y), (xq, yq) = meta_batch()
    x, xq = (t[:1].expand_as(t).float() for t in (x, xq))
    y, yq = (t[:1].expand_as(t) for t in (y, yq))
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        found.append(meta.task_losses(F.cross_entropy, (x, y), (xq, yq), steps=2))
    assert len(found[0].unique()) == TASKS
    assert torch.equal(*found)


@pytest.mark.parametrize("estimator", ["exact", Exact("forward"), Guided(h=1e-4)])
def test_with_dropout_all_passes_of_a_step_see_the_same_masks(estimator):
    torch.manual_seed(1)
    layers = [nn.Linear(6, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, WAYS)]
    model = nn.Sequential(*layers).double()
    lam = torch.linspace(0.5, 1.5, SAMPLES, **DOUBLE).requires_grad_()
    support, query = meta_batch()

    def loss(outputs, labels):
        return (lam * F.cross_entropy(outputs, labels, reduction="none")).mean()

    meta = EvoGradMetaOptimizer(
        model, 0.1, hyperparameters=lam, estimator=estimator, check="always"
    )
    first = EvoGradMetaOptimizer(model, 0.1, hyperparameters=lam, estimator="exact")
    grads = []
    for one in (meta, first):
        torch.manual_seed(5)
        losses = one.task_losses(loss, support, query)
        grads.append(torch.autograd.grad(losses.mean(), lam)[0])
    assert torch.allclose(*grads, rtol=1e-5)


# --- what cannot be computed at once -------------------------------------------------


def refused(model, error, match, loss=F.cross_entropy, data=None, **options):
    meta = EvoGradMetaOptimizer(model.double(), 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of torch.func itself
        with pytest.raises(error, match=match):
            meta.task_losses(loss, *(data or meta_batch()), **options)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_modules_that_vmap_cannot_map_over_are_refused(name):
    refused(ZOO[name](), RuntimeError, r"all tasks at once: use clone\(\) and adapt")


def test_tasks_of_unequal_size_are_refused():
    (x, y), query = meta_batch()
    tasks = [x[0], x[1][:3]]
    refused(
        small(), TypeError, "of unequal|each size of tasks", data=((tasks, y), query)
    )
    refused(small(), TypeError, "pair .inputs, labels. with the tasks", data=(x, query))
    refused(small(), ValueError, "number of tasks, at least 1, got 4, 5, 5, 5",
            data=((x[:4], y), query))  # fmt: skip
    refused(small(), ValueError, "at least 1, got 0, 0, 0, 0",
            data=((x[:0], y[:0]), (x[:0], y[:0])))  # fmt: skip


def test_settings_out_of_range_are_refused():
    refused(small(), ValueError, "expected steps to be a whole number", steps=-1)
    refused(small(), ValueError, "chunk_size to be a whole number", chunk_size=0)


def test_losses_that_are_none_are_refused():
    def of_each(outputs, labels):
        return F.cross_entropy(outputs, labels, reduction="none")

    refused(small(), ValueError, r"a task to be a scalar, got a tensor of shape \(6,\)",
            of_each)  # fmt: skip
    (x, y), query = meta_batch()
    x[2, 0] = torch.nan
    refused(small(), ValueError, "to be finite", data=((x, y), query))
    refused(small(), RuntimeError, "at once: use clone",
            lambda outputs, labels: outputs.sum() * outputs.mean().item())  # fmt: skip


class Remembering(nn.Module):
    def __init__(self, key):
        super().__init__()
        self.linear = nn.Linear(6, WAYS)
        self.key = key
        self.last = None

    def forward(self, x):
        found = self.linear(x)
        if self.key == "list":
            self.last = [found]
        elif self.key == "tensor":
            self.last = found.detach()
        elif self.key == "random":
            found = found * random.random()
        elif self.key == "numpy":
            found = found * float(np.random.rand())
        return found


@pytest.mark.parametrize("key", ["list", "tensor"])
def test_a_model_that_keeps_tensors_of_its_call_is_refused(key):
    refused(Remembering(key), RuntimeError, "keeps a tensor of its call in last, which")


@pytest.mark.parametrize("key", ["random", "numpy"])
def test_random_numbers_that_all_tasks_would_share_are_refused(key):
    refused(Remembering(key), RuntimeError, "random numbers with Python or NumPy")


class Average(nn.Module):
    """A layer that replaces its running average instead of writing to it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("average", torch.zeros(6))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.linear = nn.Linear(6, WAYS)

    def forward(self, x):
        self.average = 0.5 * self.average + 0.5 * x.mean(0)
        self.calls = self.calls + 1
        return self.linear(x - self.average) / self.calls


def test_buffers_that_are_replaced_are_those_of_the_loop():
    found, expected = (found_by(way, Average) for way in (at_once, loop))
    assert_equal(found, expected)


def test_the_model_is_as_before():
    model = small()
    meta = EvoGradMetaOptimizer(model, 0.1)
    (x, y), (xq, yq) = meta_batch()
    state = {name: t.clone() for name, t in model.state_dict().items()}
    known = {id(t) for t in [*model.parameters(), *model.buffers()]}
    meta.task_losses(F.cross_entropy, (x.float(), y), (xq.float(), yq)).sum().backward()
    assert known == {id(t) for t in [*model.parameters(), *model.buffers()]}
    assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())


def test_a_hyperparameter_that_is_not_used_is_refused():
    meta = EvoGradMetaOptimizer(
        small().double(), 0.1, hyperparameters=torch.ones(2, requires_grad=True)
    )
    with pytest.raises(ValueError, match="hyperparameter 0"):
        meta.task_losses(F.cross_entropy, *meta_batch())


# --- what a breaker found ------------------------------------------------------------


class Asking(nn.Module):
    """A model that looks at whether autograd follows its tensors."""

    def __init__(self, hook=False):
        super().__init__()
        self.first, self.second = nn.Linear(6, 4), nn.Linear(4, WAYS)
        self.hook = hook

    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        if hidden.requires_grad and not hidden.is_leaf:
            if self.hook:
                hidden.register_hook(lambda grad: -grad)
            hidden = 2 * hidden
        return self.second(hidden)


def test_models_that_ask_whether_autograd_follows_get_the_answer_of_the_loop():
    found, expected = (found_by(way, Asking) for way in (at_once, loop))
    assert_equal(found, expected)


def hooked(register):
    model = small()
    getattr(model[3], register)(lambda *arguments: None)
    return model


@pytest.mark.parametrize(
    "model",
    [
        lambda: Asking(hook=True),
        lambda: hooked("register_full_backward_hook"),
        lambda: hooked("register_full_backward_pre_hook"),
    ],
)
def test_hooks_of_the_backward_pass_are_refused(model):
    refused(model(), RuntimeError, r"use clone\(\) and adapt\(\) in a loop")


class Doubled(EvoGradMetaOptimizer):
    def forward(self, *args):
        return 2 * super().forward(*args)


class Scaled(EvoGradMetaOptimizer):
    def adapt(self, loss, **options):
        super().adapt(3 * loss, **options)


class Named(EvoGradMetaOptimizer):
    """Changes nothing."""


def test_what_learners_do_besides_is_refused():
    hooked = EvoGradMetaOptimizer(small().double(), 0.1)
    hooked.register_forward_hook(lambda module, inputs, outputs: 2 * outputs)
    for meta, what in [
        (Doubled(small().double(), 0.1), "forward"),
        (Scaled(small().double(), 0.1), "adapt"),
        (hooked, "hooks"),
    ]:
        with pytest.raises(TypeError, match=f"with other {what}, which a computation"):
            meta.task_losses(F.cross_entropy, *meta_batch())
    meta = Named(small().double(), 0.1)
    assert meta.task_losses(F.cross_entropy, *meta_batch()).isfinite().all()


class Reader(nn.Module):
    def __init__(self, average):
        super().__init__()
        self.register_buffer("average", average)

    def forward(self, x):
        return x - self.average


class Writer(Reader):
    def forward(self, x):
        with torch.no_grad():
            self.average.mul_(0.5).add_(0.5 * x.mean(0))
        return x


@pytest.mark.parametrize("training", [True, False])
def test_a_buffer_of_two_layers_stays_one(training):
    def model():
        torch.manual_seed(1)
        average = torch.zeros(6, **DOUBLE)
        reader = Reader(average).train(training)
        found = nn.Sequential(Writer(average), reader, nn.Linear(6, WAYS))
        found[1].training = training
        return found

    def ready():
        found = model()
        assert found[0].average is found[1].average
        return found

    class Kept(nn.Module):  # .double() would make two tensors of one
        def __init__(self):
            super().__init__()
            self.layers = ready()

        def double(self):
            self.layers[2].double()
            return self

        def forward(self, x):
            return self.layers(x)

    found, expected = (found_by(way, Kept) for way in (at_once, loop))
    assert_equal(found, expected)


def test_a_loss_of_one_element_is_a_scalar():
    def loss(outputs, labels):
        return F.cross_entropy(outputs, labels)[None]

    meta = EvoGradMetaOptimizer(small().double(), 0.1)
    assert meta.task_losses(loss, *meta_batch()).shape == (TASKS,)


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, WAYS)

    def forward(self, x):
        return self.linear(x), None, "a name"


def test_models_may_return_anything_that_the_loss_understands():
    meta = EvoGradMetaOptimizer(Several().double(), 0.1)

    def loss(outputs, labels):
        return F.cross_entropy(outputs[0], labels)

    assert meta.task_losses(loss, *meta_batch()).isfinite().all()


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 4), nn.Linear(4, WAYS)

    def forward(self, x):
        hidden = checkpoint(lambda x: torch.tanh(self.first(x)), x, use_reentrant=False)
        return self.second(hidden)


def test_activation_checkpoints_are_refused():
    # Older releases of torch refuse them before we do, in other words.
    refused(Checkpointed(), RuntimeError, r"use clone\(\) and adapt\(\) in a loop")


class Counting(nn.Module):
    """Writes values of a task to a buffer that all tasks share."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(6, dtype=torch.int64))
        self.linear = nn.Linear(6, WAYS)

    def forward(self, x):
        self.seen += (x > 0).sum(0)
        return self.linear(x)


def test_values_of_tasks_in_a_shared_buffer_are_refused():
    refused(Counting(), RuntimeError, r"use clone\(\) and adapt\(\) in a loop")
