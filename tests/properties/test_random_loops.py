"""Random sequences of what users do to a learner between its steps."""

from collections import Counter

import pytest
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
from programs import ACTS, Spec

pytestmark = pytest.mark.usefixtures("float64")


def without_own_state(spec):
    """A copy would go on with a generator of its own, where the truth shares one."""
    return "adapt a copy" not in spec.acts or "own generator" not in spec.blocks


def test_random_loops_get_the_gradients_of_autograd():
    verdicts = Counter()
    loops = specs(ALL_BLOCKS, ACTS).filter(without_own_state)

    @examples(30)
    @given(loops, kept_settings())
    def compare(spec, settings):
        must_work = ordinary(spec)
        if settings.get("memory") == "graph":
            must_work = must_work or on_the_graph(spec)
        judge(spec, must_work, verdicts, **settings)

    compare()
    mostly_equal(verdicts)


@pytest.mark.parametrize("memory", ["graph", "recompute", "auto"])
@pytest.mark.parametrize("act", sorted(ACTS))
def test_every_act_alone(act, memory):
    for acts in ((act, "adapt"), ("adapt", act, "adapt"), ("adapt", act)):
        for first_order in (False, True):
            spec = Spec(("batch norm", "linear"), acts, first_order=first_order)
            must_work = memory == "graph" and on_the_graph(spec)
            judge(spec, must_work or ordinary(spec), Counter(), memory=memory)


@pytest.mark.parametrize("memory", ["recompute", "auto"])
def test_few_acts_are_refused_where_steps_may_be_computed_again(memory):
    verdicts = Counter()
    for act in sorted(ACTS):
        spec = Spec(("batch norm", "linear"), ("adapt", act, "adapt"))
        judge(spec, False, verdicts, memory=memory, memory_limit=0)
    mostly_equal(verdicts, 0.6)
