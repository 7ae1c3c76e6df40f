"""Random modules and loops with named hyperparameters, by the exact estimators."""

from collections import Counter

import pytest
import torch
from blocks import ORDINARY, SMOOTH
from hypothesis import assume, given
from judging import (
    ALL_BLOCKS,
    REFUSALS,
    examples,
    judge,
    kept_settings,
    mostly_equal,
    on_the_graph,
    ordinary,
    specs,
)
from programs import HYPERPARAMETERS, LR, OUTPUTS, Session, Spec, predictions
from reference import Reference, derivatives, gap

from l2l_evograd import Exact, Guided, hypergradient

pytestmark = pytest.mark.usefixtures("float64")
ACTS = ["adapt", "adapt callable", "load head", "decay", "noise", "cut", "by hand"]
ACTS += ["rate", "evaluate", "condition", "replace head", "train", "eval"]
GUIDED = [Guided(h=1e-5), Guided(h=1e-7, scheme="forward")]
GUIDED_TOLERANCE = 1e-4
usual_parts = sorted(ORDINARY.keys() & set(SMOOTH))


def test_random_loops_with_the_exact_estimator():
    verdicts = Counter()

    @examples(20)
    @given(specs(ALL_BLOCKS, ACTS, HYPERPARAMETERS), kept_settings())
    def compare(spec, settings):
        # A buffer keeps the graph of weights that were changed by hand, with λ behind
        # them. First order has no answer for that: it is λ's, and it is a weight's.
        tangled = {"buffer with graph"} & {*spec.blocks} and {"by hand"} & {*spec.acts}
        assume(not tangled or spec.first_order is False)
        graph = spec.first_order is False and settings.get("memory") == "graph"
        must_work = ordinary(spec) or (graph and on_the_graph(spec))
        judge(spec, must_work, verdicts, estimator=Exact(), **settings)

    compare()
    mostly_equal(verdicts)


def test_random_loops_with_a_guided_difference():
    verdicts = Counter()

    @examples(15)
    @given(specs(SMOOTH, ACTS, HYPERPARAMETERS, most=3), kept_settings())
    def compare(spec, settings):
        estimator = GUIDED[spec.seed % 2]
        settings = {"estimator": estimator, **settings}
        judge(spec, ordinary(spec), verdicts, GUIDED_TOLERANCE, **settings)

    compare()
    mostly_equal(verdicts)


@pytest.mark.parametrize("name", SMOOTH)
def test_every_smooth_part_alone(name):
    for hyper, estimator in (("weights", GUIDED[0]), ("film", GUIDED[1])):
        spec = Spec(("linear", name), ("adapt",) * 2, hyper=hyper)
        judge(spec, name in ORDINARY, Counter(), GUIDED_TOLERANCE, estimator=estimator)


@pytest.mark.parametrize("hyper", HYPERPARAMETERS)
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("first_order", [None, False])
def test_every_place_of_the_hyperparameters(hyper, output, first_order):
    spec = Spec(("batch norm",), ("adapt",) * 2, output, hyper, first_order)
    judge(spec, True, Counter(), estimator=Exact())
    judge(spec, True, Counter(), GUIDED_TOLERANCE, estimator=GUIDED[0])


@pytest.mark.parametrize("act", ACTS)
def test_every_act_alone_with_hyperparameters(act):
    for acts in ((act, "adapt"), ("adapt", act, "adapt")):
        spec = Spec(("batch norm", "linear"), acts, hyper="weights")
        judge(spec, ordinary(spec), Counter(), estimator=Exact())
        usual = ordinary(spec)
        judge(spec, usual, Counter(), GUIDED_TOLERANCE, estimator=GUIDED[0])


def test_few_smooth_parts_are_refused():
    verdicts = Counter()
    for name in SMOOTH:
        spec = Spec(("linear", name), ("adapt",) * 2, hyper="weights")
        judge(spec, False, verdicts, GUIDED_TOLERANCE, estimator=GUIDED[0])
    mostly_equal(verdicts, 0.6)


def losses(run):
    """The inner and outer loss as functions of a view of the module."""

    def inner(view):
        x, y = run.batch()
        losses = (predictions(view(x)) - y).square().mean(1)
        if run.spec.hyper == "weights":
            losses = losses * torch.sigmoid(run.lam)
        loss = losses.mean()
        if run.spec.hyper == "decay":
            loss = loss + run.lam.exp() * sum(
                p.square().sum() for p in view.parameters()
            )
        return loss

    def outer(view):
        x, y = (tensor[12:] for tensor in run.data)
        return (predictions(view(x)) - y).square().mean()

    return inner, outer


def test_random_modules_in_the_function():
    verdicts = Counter()
    places = [place for place in HYPERPARAMETERS if place != "film"]
    orders = (False, True)

    @examples(5)
    @given(specs(usual_parts, ["adapt"], places, orders, most=2), kept_settings())
    def compare(spec, settings):
        steps = len(spec.acts)
        run = Session(Reference, spec, {})
        inner, outer = losses(run)
        if spec.output == "twice":
            return
        for _ in range(steps):
            run.learner.adapt(inner(run.learner))
        truth = derivatives(outer(run.learner), run.named)
        for estimator, tolerance in ((Exact(), 1e-9), (GUIDED[0], GUIDED_TOLERANCE)):
            run = Session(Reference, spec, {})
            inner, outer = losses(run)
            try:
                found = hypergradient(
                    inner,
                    outer,
                    run.model,
                    run.named,
                    lr=LR,
                    steps=steps,
                    estimator=estimator,
                    first_order=spec.first_order,
                    **{k: v for k, v in settings.items() if k != "memory_limit"},
                )
            except REFUSALS as error:
                raise AssertionError("an ordinary module was refused") from error
            assert gap(found.gradients, truth) < tolerance
            verdicts["equal"] += 1

    compare()
    assert verdicts["equal"]
