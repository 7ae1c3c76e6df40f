"""Losses that lose how they were computed: a number without λ, a refusal with it.

Without hyperparameters everything is on autograd's graph, which is the answer. With
λ and an estimator that evaluates the loss elsewhere the calls are recorded; what the
record does not lead to is refused as a tensor, and followed inside a callable.
"""

import pytest
import torch
from by_hand import ByHand, largest_gap, meta_gradients
from marked import Square
from scripts import problem, query
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from l2l_evograd import EvoGrad, EvoGradMetaOptimizer, Exact, Guided

pytestmark = pytest.mark.usefixtures("float64")


class Watched(nn.Module):
    """Keeps activations of one layer by a forward hook."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)
        self.kept = []
        self.first.register_forward_hook(self.keep)

    def keep(self, module, inputs, output):
        self.kept = [output]

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


class Squaring(nn.Linear):
    def forward(self, x):
        return Square.apply(super().forward(x))


def square_of_the_output(learner, x):
    return Square.apply(learner(x)).mean()


def square_of_a_part(learner, x):
    return (Square.apply(learner(x)) * learner(x)).mean()


def kept_by_a_hook(learner, x):
    return learner(x).square().mean() + learner.kept[0].abs().mean()


def kept_by_a_hook_alone(learner, x):
    return (learner(x) * 0).sum() + learner.kept[0].square().mean()


def a_view_from_before_a_write(learner, x):
    buffer = torch.zeros(6, 3)
    half = buffer[:3]
    buffer += learner(x)
    return half.square().mean() + learner(x).mean()


def mean_of_the_output(learner, x):
    return learner(x).mean()


# A model, a loss, and whether it is followed as a tensor and inside a callable.
LOSSES = {
    "a custom function": (nn.Linear, square_of_the_output, False, False),
    "a custom function in a part": (nn.Linear, square_of_a_part, False, False),
    "a custom function in the module": (Squaring, mean_of_the_output, False, False),
    "activations kept by a hook": (Watched, kept_by_a_hook, True, True),
    "these alone": (Watched, kept_by_a_hook_alone, True, True),
    "an older view": (nn.Linear, a_view_from_before_a_write, False, True),
}
cases = pytest.mark.parametrize("name", LOSSES)


def make(name):
    torch.manual_seed(0)
    kind, loss_of, as_tensor, as_callable = LOSSES[name]
    model = kind() if kind is Watched else kind(4, 3)
    return model, loss_of, as_tensor, as_callable, torch.randn(6, 4)


def two_steps(loss_of, x, form, scale=None):
    def scaled(view):
        loss = loss_of(view, x)
        return loss if scale is None else scale.exp() * loss

    def run(meta):
        learner = meta.clone()
        for _ in range(2):
            learner.adapt(scaled if form == "callable" else scaled(learner))
        return learner(x).square().mean()

    return run


@pytest.mark.parametrize("form", ["tensor", "callable"])
@pytest.mark.parametrize("settings", [{}, {"first_order": True}, {"memory_limit": 0}])
@cases
def test_without_hyperparameters_every_loss_gives_the_gradients_of_maml(
    name, settings, form
):
    model, loss_of, _, _, x = make(name)
    run = two_steps(loss_of, x, form)
    params = list(model.parameters())
    _, found = meta_gradients(EvoGradMetaOptimizer(model, 0.1, **settings), run, params)
    by_hand = ByHand(model, 0.1, settings.get("first_order"))
    _, expected = meta_gradients(by_hand, run, params)
    assert largest_gap(found, expected) < 1e-10


RECORDED = {
    "guided": ({"estimator": Guided(h=1e-4)}, 1e-6),
    "exact, computed again": (
        {"estimator": Exact(), "first_order": False, "memory": "recompute"},
        1e-10,
    ),
    "evograd": ({"estimator": EvoGrad()}, None),
    "evolution": ({"update": "evolution"}, None),
}


@pytest.mark.parametrize("form", ["tensor", "callable"])
@pytest.mark.parametrize("settings", RECORDED)
@cases
def test_with_hyperparameters_it_is_followed_or_refused(name, settings, form):
    model, loss_of, as_tensor, as_callable, x = make(name)
    settings, tolerance = RECORDED[settings]
    lam = torch.zeros((), requires_grad=True)
    run = two_steps(loss_of, x, form, lam)
    meta = EvoGradMetaOptimizer(
        model, 0.1, hyperparameters=lam, check="always", **settings
    )
    if not (as_callable if form == "callable" else as_tensor):
        reason = "custom torch.autograd.Function" if form == "callable" else ""
        message = f"cannot be computed again.*{reason}.*pass a callable.*memory='graph'"
        with pytest.raises(TypeError, match=message):
            run(meta)
        return
    _, found = meta_gradients(meta, run, [lam])
    exact = EvoGradMetaOptimizer(
        model,
        0.1,
        hyperparameters=lam,
        estimator="exact",
        first_order=settings.get("first_order"),
    )
    _, expected = meta_gradients(exact, run, [lam])
    if tolerance is not None:
        assert largest_gap(found, expected) < tolerance
    assert bool(torch.isfinite(found[0]).all())


@pytest.mark.parametrize("first_order", [False, True])
@cases
def test_exact_hypergradients_on_the_graph_are_given_for_every_loss(name, first_order):
    model, loss_of, _, _, x = make(name)
    lam = torch.zeros((), requires_grad=True)
    run = two_steps(loss_of, x, "tensor", lam)
    settings = {"estimator": "exact", "memory": "graph", "first_order": first_order}
    meta = EvoGradMetaOptimizer(model, 0.1, hyperparameters=lam, **settings)
    _, found = meta_gradients(meta, run, [lam])
    if not first_order:
        _, expected = meta_gradients(ByHand(model, 0.1), run, [lam])
        assert largest_gap(found, expected) < 1e-10
    assert float(found[0].abs()) > 1e-6


def scripted(add):
    @torch.jit.script
    def squared(x, y):
        z = x * 2
        z += y
        return (z * z).mean()

    def loss_of(view, x):
        return squared(view(x), x[:, :3]) + (add * view(x).mean() if add else 0)

    return loss_of


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.parametrize("form", ["tensor", "callable"])
@pytest.mark.parametrize("add", [0.0, 1.0])
def test_a_scripted_loss_function_gives_the_gradients_of_maml(add, form):
    model, x = nn.Linear(4, 3), torch.randn(6, 4)
    params = list(model.parameters())
    run = two_steps(scripted(add), x, form)
    _, expected = meta_gradients(ByHand(model, 0.1), run, params)
    _, found = meta_gradients(EvoGradMetaOptimizer(model, 0.1), run, params)
    assert largest_gap(found, expected) < 1e-10


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.parametrize("form", ["tensor", "callable"])
@pytest.mark.parametrize("add", [0.0, 1.0])
def test_a_scripted_loss_function_cannot_be_repeated(add, form):
    model, x = nn.Linear(4, 3), torch.randn(6, 4)
    run = two_steps(scripted(add), x, form)
    meta = EvoGradMetaOptimizer(model, 0.1, memory="recompute")
    with pytest.raises(TypeError, match="cannot be computed again.*memory='graph'"):
        for _ in range(3):  # it is compiled after some runs
            run(meta)


@pytest.mark.parametrize("memory", ["auto", "recompute"])
def test_checkpointed_parts_are_followed(memory):
    d = problem()

    def run(meta, call):
        learner = meta.clone()
        for _ in range(2):
            hidden = call(learner.features, d.x)
            learner.adapt(F.cross_entropy(learner.head(hidden), d.y))
        return query(learner, d)

    def checkpointed(part, x):
        return checkpoint(part, x, use_reentrant=False)

    meta = EvoGradMetaOptimizer(d.model, 0.1, memory=memory)
    found = meta_gradients(meta, lambda m: run(m, checkpointed), d.tensors)
    # Without checkpoints: theirs would be computed again at the weights moved to.
    expected = meta_gradients(
        ByHand(d.model, 0.1), lambda m: run(m, lambda part, x: part(x)), d.tensors
    )
    assert largest_gap(found[1], expected[1]) < 1e-10
