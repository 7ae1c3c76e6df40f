"""Which update, how often it is checked, and when steps are computed again."""

import pytest
import torch
from by_hand import ByHand, largest_gap, meta_gradients
from classifiers import batch, network
from torch.nn import functional as F

from l2l_evograd import EvoGrad, EvoGradMetaOptimizer, Exact, Guided
from l2l_evograd.seeds import default_generator
from l2l_evograd.updates.evolution import Evolution
from l2l_evograd.updates.gradient import Gradient
from l2l_evograd.updates.inner_step import (
    MEMORY_LIMIT,
    History,
    Keeping,
    inner_step,
    make_update,
    needs_a_record,
)
from l2l_evograd.updates.situation import Situation, Stepped

pytestmark = pytest.mark.usefixtures("float64")


def test_public_arguments_name_an_update():
    assert make_update("gradient", None).estimator == Guided()
    assert make_update("gradient", "exact").estimator == Exact()
    assert make_update("gradient", EvoGrad(4)).estimator == EvoGrad(4)
    assert isinstance(make_update("gradient", EvoGrad(4)), Gradient)
    assert isinstance(make_update("evolution", None), Evolution)
    with pytest.raises(ValueError, match="update to be one of"):
        make_update("newton", None)


def test_a_record_is_needed_where_something_is_computed_again():
    lam = [torch.ones((), requires_grad=True)]
    known, unknown = History("never"), History("never")
    known.size = 1000
    kept, again = Keeping("graph", 0), Keeping("recompute", 0)
    for update, hyperparameters, keeping, history, needed in [
        (Gradient(Exact()), [], kept, unknown, False),
        (Gradient(Guided()), [], kept, unknown, False),
        (Gradient(Exact()), lam, kept, unknown, False),
        (Gradient(Exact()), lam, Keeping("auto", 9), unknown, True),
        (Gradient(Exact()), lam, Keeping("auto", 9), known, False),
        (Gradient(Exact("forward")), lam, kept, known, True),
        (Gradient(Exact("reverse")), lam, kept, unknown, False),
        (Gradient(Guided()), lam, kept, known, True),
        (Gradient(EvoGrad()), lam, kept, known, True),
        (Gradient(Exact()), lam, again, known, True),
        (Evolution(), [], kept, known, True),
    ]:
        first_order = True
        found = needs_a_record(update, hyperparameters, first_order, keeping, history)
        assert found is needed
    rule = Gradient(Exact())
    assert needs_a_record(rule, [], False, again, known)
    assert not needs_a_record(rule, lam, False, Keeping("auto", 9), unknown)


@pytest.mark.parametrize(
    ("bad", "error", "match"),
    [
        (0.5, TypeError, "a scalar tensor, got float"),
        (torch.ones(2, requires_grad=True), ValueError, r"tensor of shape \(2,\)"),
        (torch.tensor(torch.inf, requires_grad=True), ValueError, "finite, got inf"),
        (torch.tensor(torch.nan, requires_grad=True), ValueError, "finite, got nan"),
        (torch.ones(()), ValueError, "does not require grad"),
    ],
)
def test_a_loss_that_is_none_is_refused(bad, error, match):
    params = [torch.ones(2, requires_grad=True)]
    with pytest.raises(error, match=match):
        inner_step(
            make_update("gradient", None),
            Situation(value=bad, params=params, names=lambda: ["w"]),
        )


def test_the_default_generator_follows_the_seed_and_draws_nothing():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = default_generator().get_state()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(default_generator().get_state(), first)
    torch.rand(1)
    assert not torch.equal(default_generator().get_state(), first)
    torch.manual_seed(3)
    assert torch.equal(default_generator().get_state(), first)


def test_checks_are_due_at_first_and_then_every_hundredth_time():
    history = History("first")
    due = [step for step in range(1, 351) if history.due()]
    assert due == [1, 2, 3, 100, 200, 300]
    assert all(History("always").due() for _ in range(5))
    assert not any(History("never").due() for _ in range(5))
    with pytest.raises(ValueError, match="check to be one of 'first', 'always', 'nev"):
        History("sometimes")


def test_checks_are_counted_for_a_loss_function_over_all_its_calls():
    def functions():
        return [lambda x: x, lambda x: x + 1]

    first, second = functions()
    again, _ = functions()
    assert History.of("first", first, 0) is History.of("first", again, 0)
    assert History.of("first", first, 0) is not History.of("first", second, 0)
    assert History.of("always", first, 0) is not History.of("first", first, 0)

    class Loss:
        def __call__(self, x):
            return x

    assert History.of("first", Loss(), 0) is History.of("first", Loss(), 0)


def test_a_new_module_has_a_new_count_also_with_the_id_of_one_that_is_gone():
    def loss(view):
        return view

    for _ in range(5):
        model = torch.nn.Linear(1, 1)
        history = History.of("first", loss, 0, model)
        assert history is History.of("first", loss, 0, model)
        assert history.due() and history._steps == 1
        del model


def graph_of(count):
    """A step that keeps a graph of ``count`` numbers."""
    end = torch.ones(count, requires_grad=True) * 2
    return Stepped([], [], [], [], graph=[end, None])


def test_graphs_are_kept_until_they_exceed_the_limit():
    keeping = Keeping("auto", 100 * 8)
    for again in (False, False, True, True):
        keeping.note(graph_of(40))
        assert keeping.again is again
    assert not keeping.insist
    another = keeping.fresh()
    assert not another.again and another.limit == 800


@pytest.mark.parametrize(("memory", "again"), [("graph", False), ("recompute", True)])
def test_what_was_decided_stays(memory, again):
    keeping = Keeping(memory, 0)
    assert keeping.again is keeping.insist is again
    keeping.note(graph_of(1000))
    assert keeping.again is keeping.fresh().again is again


def test_steps_without_a_graph_count_for_nothing():
    keeping = Keeping("auto", 0)
    keeping.note(Stepped([], [], [], []))
    assert not keeping.again
    keeping.note(graph_of(1))
    assert keeping.again


def test_what_is_no_way_to_keep_graphs_is_refused():
    with pytest.raises(ValueError, match="memory to be one of 'auto', 'graph', 'recom"):
        Keeping("disk", 0)
    for limit in (-1, 1.5, True, None):
        with pytest.raises(ValueError, match="a number of bytes, to be a whole num"):
            Keeping("auto", limit)
    assert Keeping("auto", MEMORY_LIMIT).limit == 2**28


WAYS = {
    "graph": {"memory": "graph"},
    "recompute": {"memory": "recompute"},
    "auto": {},
    "auto, nothing kept": {"memory_limit": 0},
    "auto, some kept": {"memory_limit": 10_000},
}


def gradients(model, lam, settings, steps=4):
    x, y = batch(1)
    xq, yq = batch(2)

    def run(meta):
        learner = meta.clone()
        kept.clear()
        for _ in range(steps):
            losses = F.cross_entropy(learner(x), y, reduction="none")
            learner.adapt((torch.sigmoid(lam) * losses).mean())
            if hasattr(learner, "_keeping"):
                kept.append(not learner._again)
        return F.cross_entropy(learner(xq), yq)

    kept = []
    meta = settings if isinstance(settings, ByHand) else None
    if meta is None:
        meta = EvoGradMetaOptimizer(model, 0.1, check="always", **settings)
    return meta_gradients(meta, run, [lam, *model.parameters()])[1], kept


@pytest.mark.parametrize("named", [False, True])
def test_every_way_to_keep_graphs_gives_the_same_gradients(named):
    model, lam = network(), torch.zeros(10, requires_grad=True)
    expected, _ = gradients(model, lam, ByHand(model, 0.1))
    more = {"hyperparameters": lam, "estimator": "exact", "first_order": False}
    switched = {}
    for name, way in WAYS.items():
        found, kept = gradients(model, lam, {**way, **(more if named else {})})
        assert largest_gap(found, expected) < 1e-10, name
        switched[name] = kept
    assert switched["graph"] == switched["auto"] == [True] * 4
    assert switched["recompute"] == switched["auto, nothing kept"] == [False] * 4
    some = switched["auto, some kept"]
    assert some[0] and not some[-1] and some == sorted(some, reverse=True), some


def test_every_clone_begins_with_nothing_kept():
    model, lam = network(), torch.zeros(10, requires_grad=True)
    meta = EvoGradMetaOptimizer(model, 0.1, memory_limit=1000)
    x, y = batch(1)
    for _ in range(3):
        learner = meta.clone()
        assert not learner._again
        learner.adapt(F.cross_entropy(learner(x), y))
        assert learner._again
    assert lam.grad is None
