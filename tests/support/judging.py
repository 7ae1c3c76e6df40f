"""What must hold of every random program, how many are tried, which may be refused.

``L2L_EVOGRAD_PROPERTIES=thorough`` tries fifty times as many, from a new seed.
"""

import os
from collections import Counter

import hypothesis.strategies as st
from blocks import BLOCKS, ORDINARY
from hypothesis import HealthCheck, currently_in_test_context, event, settings
from programs import OUTPUTS, Outcome, Spec, play
from reference import Reference, gap
from right_norm import RightNorm

from l2l_evograd import EvoGradMetaOptimizer

REFUSALS = (RuntimeError, ValueError, TypeError)
THOROUGH = os.environ.get("L2L_EVOGRAD_PROPERTIES") == "thorough"
WRITING = {"load head", "decay", "noise"}
IN_PLACE = {*WRITING, "cut"}
HOLDING = {"keep support", "keep output", "replace head"}
# Nothing about these is odd: no estimator may refuse them.
USUAL = {"adapt", "adapt callable", "rate", "evaluate", "train", "eval"}
USUAL |= {"load head", "decay", "noise"}

settings.register_profile(
    "l2l_evograd",
    deadline=None,
    derandomize=not THOROUGH,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("l2l_evograd")


def examples(share: int) -> settings:
    """Try so many; the shares of all tests of this folder add up to a hundred."""
    return settings(max_examples=50 * share if THOROUGH else share)


def specs(blocks, acts, hyper=(None,), first_order=(None, False, True), most=4):
    """Descriptions from the given parts; every other one has ordinary blocks only."""
    usual = [name for name in blocks if name in ORDINARY]
    some = st.one_of(
        *(
            st.lists(st.sampled_from(sorted(names)), min_size=1, max_size=2)
            for names in (usual, blocks)
        )
    )
    return st.builds(
        Spec,
        blocks=some.map(tuple),
        acts=st.lists(st.sampled_from(sorted(acts)), min_size=1, max_size=most).map(
            lambda acts: (*acts, "adapt")
        ),
        output=st.sampled_from(OUTPUTS),
        hyper=st.sampled_from(hyper),
        first_order=st.sampled_from(first_order),
        seed=st.integers(0, 1000),
    )


def kept_settings():
    """Where graphs are kept and what is checked, which must not change a number."""
    memory = [
        {},
        {"memory": "graph"},
        {"memory": "recompute"},
        {"memory": "auto"},
        {"memory": "auto", "memory_limit": 0},
    ]
    checks = [{}, {"check": "first"}, {"check": "always"}]
    return st.builds(
        lambda one, other: {**one, **other},
        st.sampled_from(memory),
        st.sampled_from(checks),
    )


def ordinary(spec: Spec) -> bool:
    return set(spec.blocks) <= ORDINARY.keys() and set(spec.acts) <= USUAL


def autograd_may_refuse(spec: Spec) -> bool:
    """Whether a graph that is used again may have been freed or overwritten."""
    first = bool(spec.first_order) or "adapt first order" in spec.acts
    held = HOLDING & set(spec.acts) or "buffer with graph" in spec.blocks
    return bool(held) and (first or bool(IN_PLACE & set(spec.acts)))


def undefined(spec: Spec) -> bool:
    """Whether weights are written over that a tensor kept for later came from.

    Autograd then takes the weights for those that it came from, the reference for new.
    """
    held = [i for i, act in enumerate(spec.acts) if act in HOLDING]
    return any(act in WRITING for i in held[:1] for act in spec.acts[i:])


def on_the_graph(spec: Spec) -> bool:
    """Whether nothing but plain autograd is needed, so that nothing may be refused."""
    # What a checkpoint computes again in the outer backward pass would be computed at
    # other weights. Tensors with a graph on a module cannot be deep-copied.
    copied = "adapt a copy" in spec.acts and not set(spec.blocks) <= ORDINARY.keys()
    return not (autograd_may_refuse(spec) or copied or "checkpoint" in spec.blocks)


def judge(
    spec: Spec,
    must_work: bool,
    verdicts: Counter[str],
    tolerance: float = 1e-9,
    **settings: object,
) -> None:
    """Hold a run of the package against the truth; a refusal is no wrong number."""
    if undefined(spec):
        note(verdicts, "no truth")
        return
    try:
        with RightNorm():
            truth = play(Reference, spec)
    except RuntimeError:  # as of plain autograd, for graphs that it has freed
        note(verdicts, "no truth")
        return
    try:
        found = play(EvoGradMetaOptimizer, spec, **settings)
    except REFUSALS as error:
        assert str(error).strip(), "an error must say what is wrong"
        if must_work:
            raise
        note(verdicts, "refused")
        return
    hold_against(found, truth, tolerance)
    note(verdicts, "equal")


def note(verdicts: Counter[str], verdict: str) -> None:
    verdicts[verdict] += 1
    if currently_in_test_context():
        event(verdict)


def hold_against(found: Outcome, truth: Outcome, tolerance: float) -> None:
    loose = tolerance if truth.hyper else 1e-9
    for name, one, other, allowed in (
        ("losses or weights", found.values, truth.values, 1e-9),
        ("hypergradient", found.hyper, truth.hyper, tolerance),
        ("gradients", found.weights, truth.weights, loose),
    ):
        error = gap(one, other)
        assert error < allowed, f"{name} off by {error:.2g} of the largest entry"


def mostly_equal(verdicts: Counter[str], share: float = 0.5) -> None:
    """Check that the test is about numbers: not everything was refused."""
    judged = verdicts["equal"] + verdicts["refused"]
    assert verdicts["equal"] >= share * judged > 0, verdicts


ALL_BLOCKS = sorted(BLOCKS)
