"""Random modules in learn2learn's plain loop: MAML's gradients, whatever they do."""

from collections import Counter

import pytest
from blocks import ORDINARY
from hypothesis import given
from judging import (
    ALL_BLOCKS,
    examples,
    judge,
    kept_settings,
    mostly_equal,
    on_the_graph,
    ordinary,
    specs,
)
from programs import OUTPUTS, Spec

pytestmark = pytest.mark.usefixtures("float64")
LOOPS = [("adapt",) * 2, ("adapt callable", "adapt")]


def graph_only(settings):
    return settings.get("memory") == "graph"


def test_random_modules_get_the_gradients_of_autograd():
    verdicts = Counter()

    @examples(25)
    @given(specs(ALL_BLOCKS, ["adapt", "adapt callable"], most=2), kept_settings())
    def compare(spec, settings):
        must_work = ordinary(spec) or (graph_only(settings) and on_the_graph(spec))
        judge(spec, must_work, verdicts, **settings)

    compare()
    mostly_equal(verdicts)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("name", ALL_BLOCKS)
def test_every_part_alone_on_the_graph(name, first_order):
    for acts, output in zip(LOOPS, ("tensor", "twice"), strict=True):
        spec = Spec(("linear", name), acts, output, first_order=first_order)
        judge(spec, on_the_graph(spec), Counter(), memory="graph")


@pytest.mark.parametrize("name", ALL_BLOCKS)
def test_every_part_alone_computed_again(name):
    for acts, output in zip(LOOPS, ("twice", "tensor"), strict=True):
        spec = Spec(("linear", name), acts, output)
        judge(spec, name in ORDINARY, Counter(), memory="recompute")


def test_few_parts_are_refused_where_steps_are_computed_again():
    verdicts = Counter()
    for name in ALL_BLOCKS:
        spec = Spec(("linear", name), ("adapt",) * 2)
        judge(spec, False, verdicts, memory="recompute")
    mostly_equal(verdicts, 0.7)


@pytest.mark.parametrize("output", OUTPUTS)
def test_every_kind_of_output(output):
    spec = Spec(("batch norm", "linear"), ("adapt",) * 2, output)
    for settings in ({}, {"memory": "recompute"}):
        judge(spec, True, Counter(), **settings)
