"""A population shared out among processes, held against the same in one."""

from dataclasses import replace

import pytest
import torch
from populations import (
    adapt_learners,
    call_function,
    learn_after,
    learn_before,
    learn_online,
)
from several_processes import in_processes
from torch import distributed

from l2l_evograd import EvoGrad

pytestmark = pytest.mark.usefixtures("float64")

# Among two or three processes the first divides unevenly, the last leaves one idle.
POPULATIONS = {
    "plain": EvoGrad(5, 0.05, 0.5),
    "antithetic": EvoGrad(4, 0.05, 0.5, sampling="antithetic"),
    "orthogonal": EvoGrad(4, 0.05, 0.5, "gaussian", "orthogonal"),
    "pair": EvoGrad(2, 0.05, 0.5, "gaussian"),
}
ENTRIES = [learn_after, learn_before, call_function, adapt_learners]


def every_case(entry, rank, group):
    """Return "update, population" -> what ``entry`` gives, the random state included.

    Processes differ in the seed of the perturbations alone.
    """
    found = {}
    for update in ("evolution", "gradient"):
        for name, population in POPULATIONS.items():
            torch.manual_seed(3)
            estimator = replace(population, process_group=group)
            tensors = entry(update, estimator, seed=5 + rank)
            found[f"{update}, {name}"] = [*tensors, torch.get_rng_state()]
    return found


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("entry", ENTRIES)
def test_several_processes_all_give_what_one_gives(tmp_path, entry, count):
    expected = every_case(entry, 0, None)
    first, *others = in_processes(tmp_path, count, every_case, entry)
    for case, tensors in expected.items():
        for own, one in zip(first[case], tensors, strict=True):
            torch.testing.assert_close(
                own, one, rtol=1e-9, atol=1e-12, msg=lambda m, case=case: f"{case}: {m}"
            )
        for other in others:
            assert all(map(torch.equal, first[case], other[case])), case


def test_a_group_of_one_changes_no_bit(tmp_path):
    expected = every_case(call_function, 0, None)
    (found,) = in_processes(tmp_path, 1, every_case, call_function)
    for case, tensors in expected.items():
        assert all(map(torch.equal, found[case], tensors)), case


def in_single_precision(rank, group):
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(3)
    estimator = EvoGrad(5, 0.05, 0.5, process_group=group)
    return call_function("evolution", estimator, 5 + rank, steps=1)[1:3]


@pytest.mark.parametrize("count", [2, 6])
def test_the_new_weights_are_those_of_one_process_bit_for_bit(tmp_path, count):
    expected = in_single_precision(0, None)
    torch.set_default_dtype(torch.float64)
    for found in in_processes(tmp_path, count, in_single_precision):
        assert all(map(torch.equal, found, expected))


def on_a_grid(base_step, rank, group):
    """Rows of a 2 x 2 grid share out the candidates, columns the data."""
    row, column = divmod(rank, 2)
    rows = [distributed.new_group(ranks) for ranks in ([0, 1], [2, 3])]
    columns = [distributed.new_group(ranks) for ranks in ([0, 2], [1, 3])]
    found = {}
    for update in ("evolution", "gradient"):
        estimator = EvoGrad(5, 0.05, 0.5, process_group=rows[row])
        found[update] = learn_online(
            update, estimator, 5 + rank, base_step, [row], columns[column]
        )
    return found


@pytest.mark.parametrize("base_step", ["after", "before"])
def test_candidates_and_data_can_be_shared_out_together(tmp_path, base_step):
    for found in in_processes(tmp_path, 4, on_a_grid, base_step):
        for update, tensors in found.items():
            population = EvoGrad(5, 0.05, 0.5)
            expected = learn_online(update, population, 5, base_step, [0, 1])
            for own, one in zip(tensors, expected, strict=True):
                torch.testing.assert_close(own, one, rtol=1e-9, atol=1e-12)


def with_one_group_for_both(rank, group):
    for update in ("evolution", "gradient"):
        with pytest.raises(
            ValueError, match=r"process in common, got processes \[0, 1\] in both: "
        ):
            learn_online(
                update, EvoGrad(process_group=group), 5, "after", [rank], group
            )


def test_candidates_and_data_need_groups_of_their_own(tmp_path):
    in_processes(tmp_path, 2, with_one_group_for_both)
