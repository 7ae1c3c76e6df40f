from functools import partial

import pytest
import torch
from by_hand import ByHand, largest_gap, meta_gradients
from marked import Square
from scripts import problem, query
from scripts_reading import READING
from scripts_writing import WRITING
from torch import nn
from torch.nn import functional as F

from l2l_evograd import EvoGradMetaOptimizer, Exact, Guided

pytestmark = pytest.mark.usefixtures("float64")

CASES = {**READING, **WRITING}


def run(algorithm, name, d):
    d.sibling = algorithm.clone
    return CASES[name](algorithm.clone(), d)


@pytest.mark.parametrize("first_order", [False, True], ids=["exact", "first_order"])
@pytest.mark.parametrize("name", CASES)
def test_a_loss_computed_in_any_way_gives_the_gradients_of_maml(name, first_order):
    d = problem()
    algorithms = [
        EvoGradMetaOptimizer(d.model, lr=0.1, first_order=first_order),
        ByHand(d.model, 0.1, first_order),
    ]
    found, expected = [
        meta_gradients(algorithm, lambda a: run(a, name, d), d.tensors)
        for algorithm in algorithms
    ]
    assert abs(found[0] - expected[0]) < 1e-12
    assert largest_gap(found[1], expected[1]) < 1e-10
    assert max(g.abs().max() for g in found[1]) > 1e-4


def test_learn2learn_itself_gives_the_same_in_every_case():
    import learn2learn

    gaps = {}
    for name in CASES.keys() - {"a_callable"}:
        d = problem()
        maml = learn2learn.algorithms.MAML(d.model, lr=0.1, allow_unused=True)
        meta = EvoGradMetaOptimizer(d.model, lr=0.1)
        # learn2learn's clones share their buffers with the original.
        buffers = [b.clone() for b in d.model.buffers()]
        _, expected = meta_gradients(
            maml, lambda a, n=name, d=d: run(a, n, d), d.tensors
        )
        for buffer, before in zip(d.model.buffers(), buffers, strict=True):
            buffer.copy_(before)
        _, found = meta_gradients(meta, partial(run, name=name, d=d), d.tensors)
        gaps[name] = largest_gap(found, expected)
    assert max(gaps.values()) < 1e-10, gaps


WITH_KINKS = {
    "index_functions_in_place",
    "many_functions",
    "operators_and_methods",
    "masks_of_booleans_and_numpy",
}


@pytest.mark.parametrize("name", CASES)
def test_a_named_hyperparameter_gets_the_same_from_a_difference_as_exactly(name):
    found = []
    for estimator in (Guided(h=1e-4), Exact()):
        d = problem()
        meta = EvoGradMetaOptimizer(
            d.model,
            lr=0.1,
            hyperparameters=[d.lam, d.temperature],
            allow_unused=True,
            estimator=estimator,
        )
        found.append(meta_gradients(meta, lambda a, d=d: run(a, name, d), d.tensors)[1])
    assert largest_gap(*found) < (0.05 if name in WITH_KINKS else 1e-6)


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


def refused_as_tensor_but_not_as_callable(model, loss_of, match, errors=TypeError):
    """Check the refusal, then the gradients of the callable form."""
    x = torch.randn(6, 4)
    learner = EvoGradMetaOptimizer(model, lr=0.1).clone()
    with pytest.raises(errors, match=match):
        learner.adapt(loss_of(learner, x))

    def run(meta):
        learner = meta.clone()
        for _ in range(2):
            learner.adapt(lambda view: loss_of(view, x))
        return learner(x).square().mean()

    params = list(model.parameters())
    for first_order in (False, True):
        _, found = meta_gradients(
            EvoGradMetaOptimizer(model, 0.1, first_order=first_order), run, params
        )
        _, expected = meta_gradients(ByHand(model, 0.1, first_order), run, params)
        assert largest_gap(found, expected) < 1e-10


def test_a_custom_autograd_function_asks_for_a_callable():
    refused_as_tensor_but_not_as_callable(
        nn.Linear(4, 3),
        lambda learner, x: Square.apply(learner(x)).mean(),
        r"does not remember.*autograd\.Function.*pass a callable",
    )


def test_a_custom_autograd_function_in_part_of_the_loss_asks_for_a_callable():
    refused_as_tensor_but_not_as_callable(
        nn.Linear(4, 3),
        lambda learner, x: (Square.apply(learner(x)) * learner(x)).mean(),
        "does not remember.*pass a callable",
    )


def test_a_custom_autograd_function_inside_the_module_is_no_concern():
    class Squaring(nn.Linear):
        def forward(self, x):
            return Square.apply(super().forward(x))

    model, x = Squaring(4, 3), torch.randn(6, 4)

    def run(meta):
        learner = meta.clone()
        learner.adapt(learner(x).mean())
        return learner(x).square().mean()

    params = list(model.parameters())
    _, found = meta_gradients(EvoGradMetaOptimizer(model, 0.1), run, params)
    _, expected = meta_gradients(ByHand(model, 0.1), run, params)
    assert largest_gap(found, expected) < 1e-10


def test_activations_kept_by_a_hook_ask_for_a_callable():
    refused_as_tensor_but_not_as_callable(
        Watched(),
        lambda learner, x: learner(x).square().mean() + learner.kept[0].abs().mean(),
        "does not remember.*pass a callable",
    )


def test_activations_kept_by_a_hook_alone_ask_for_a_callable():
    def loss_of(learner, x):
        return (learner(x) * 0).sum() + learner.kept[0].square().mean()

    refused_as_tensor_but_not_as_callable(Watched(), loss_of, "pass a callable")


def test_a_view_taken_before_its_base_was_written_to_asks_for_a_callable():
    def loss_of(learner, x):
        buffer = torch.zeros(6, 3)
        half = buffer[:3]
        buffer += learner(x)
        return half.square().mean() + learner(x).mean()

    refused_as_tensor_but_not_as_callable(nn.Linear(4, 3), loss_of, "pass a callable")


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_a_scripted_loss_function_asks_for_a_callable():
    @torch.jit.script
    def squared(x, y):
        z = x * 2
        z += y
        return (z * z).mean()

    for add in (0.0, 1.0):
        refused_as_tensor_but_not_as_callable(
            nn.Linear(4, 3),
            lambda v, x, a=add: squared(v(x), x[:, :3]) + (a * v(x).mean() if a else 0),
            "does not remember.*pass a callable",
        )


def test_checkpointed_parts_are_followed():
    from torch.utils.checkpoint import checkpoint

    d = problem()

    def run(meta, call):
        learner = meta.clone()
        for _ in range(2):
            hidden = call(learner.features, d.x)
            learner.adapt(F.cross_entropy(learner.head(hidden), d.y))
        return query(learner, d)

    def checkpointed(part, x):
        return checkpoint(part, x, use_reentrant=False)

    found = meta_gradients(
        EvoGradMetaOptimizer(d.model, 0.1), lambda m: run(m, checkpointed), d.tensors
    )
    # Without checkpoints: theirs would be computed again at the weights moved to.
    expected = meta_gradients(
        ByHand(d.model, 0.1), lambda m: run(m, lambda part, x: part(x)), d.tensors
    )
    assert largest_gap(found[1], expected[1]) < 1e-10
