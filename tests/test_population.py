"""A population shared out among processes, held against the same in one."""

import copy
import multiprocessing
import os
import pickle
from dataclasses import replace
from datetime import timedelta

import pytest
import torch
from torch import distributed, nn

from l2l_evograd import EvoGrad, EvoGradMetaOptimizer, bilevel_step, hypergradient
from l2l_evograd.processes import Processes

pytestmark = pytest.mark.usefixtures("float64")

# Among two or three processes the first divides unevenly, the last leaves one idle.
POPULATIONS = {
    "plain": EvoGrad(5, 0.05, 0.5),
    "antithetic": EvoGrad(4, 0.05, 0.5, sampling="antithetic"),
    "orthogonal": EvoGrad(4, 0.05, 0.5, "gaussian", "orthogonal"),
    "pair": EvoGrad(2, 0.05, 0.5, "gaussian"),
}
SAMPLES = 6


def numbers(*shape, seed=7):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(noisy):
    """Return the same network at every call, with masks and statistics if ``noisy``."""
    between = [nn.BatchNorm1d(4), nn.Dropout(0.3)] if noisy else []
    model = nn.Sequential(nn.Linear(3, 4), *between, nn.Tanh(), nn.Linear(4, 2))
    with torch.no_grad():
        for position, parameter in enumerate(model.parameters()):
            parameter.copy_(numbers(*parameter.shape, seed=position))
    return model


def learn_online(update, estimator, seed, base_step, shares=(0,), group=None):
    """Return all that two steps on the mean over ``shares`` of the data give."""
    x, meta = numbers(2, SAMPLES, 3), numbers(2, SAMPLES, 3, seed=8)
    y, meta_y = numbers(2, SAMPLES, 2, seed=9), numbers(2, SAMPLES, 2, seed=10)
    # Other processes' data may have other masks and statistics.
    model = network(noisy=len(shares) == 1 and group is None)
    weights = torch.linspace(-1, 1, 2 * SAMPLES).view(2, SAMPLES).requires_grad_()
    temperature = torch.ones((), requires_grad=True)

    def inner(view):
        errors = [
            weights[p].sigmoid() * (view(x[p]) - y[p]).square().sum(1) for p in shares
        ]
        return torch.stack(errors).mean()

    def outer(view):
        errors = [(temperature * view(meta[p]) - meta_y[p]).square() for p in shares]
        return torch.stack(errors).mean()

    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    hyper = torch.optim.SGD([weights, temperature], lr=10.0)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(2):
        step = bilevel_step(
            model,
            inner,
            outer,
            base,
            hyper,
            update=update,
            estimator=estimator,
            base_step=base_step,
            generator=generator,
            process_group=group,
            allow_unused=True,
        )
        found += [step.inner_loss, step.outer_loss, *step.hypergradient]
    return [*found, *model.parameters(), *model.buffers(), weights, temperature]


def learn_after(update, estimator, seed):
    return learn_online(update, estimator, seed, "after")


def learn_before(update, estimator, seed):
    return learn_online(update, estimator, seed, "before")


def call_function(update, estimator, seed, steps=2, first_order=False):
    """Return what two inner steps give, the second of them with its curvature."""
    x, y = numbers(SAMPLES, 3), numbers(SAMPLES, 2, seed=8)
    theta = {"weight": numbers(3, 2, seed=9), "bias": numbers(2, seed=10)}

    def errors(params):
        hidden = torch.dropout(x @ params["weight"] + params["bias"], 0.3, True)
        return (hidden.tanh() - y).square().sum(1)

    found = hypergradient(
        lambda params, lam: (lam.sigmoid() * errors(params)).mean(),
        lambda params, lam: errors(params).mean(),
        theta,
        torch.linspace(-1, 1, SAMPLES),
        lr=0.1,
        update=update,
        estimator=estimator,
        steps=steps,
        first_order=first_order,
        generator=torch.Generator().manual_seed(seed),
    )
    return [found.gradients, *found.params.values(), found.outer_loss]


def adapt_learners(update, estimator, seed):
    """Return the gradients of λ and of the initial weights after two tasks."""
    model = network(noisy=True)
    weights = torch.linspace(-1, 1, SAMPLES).requires_grad_()
    meta = EvoGradMetaOptimizer(
        model,
        0.1,
        first_order=False,
        hyperparameters=[weights],
        update=update,
        estimator=estimator,
        generator=torch.Generator().manual_seed(seed),
    )
    total = torch.zeros(())
    for task in range(2):
        learner = meta.clone()
        x = numbers(2, SAMPLES, 3, seed=20 + task)
        for _ in range(2):
            learner.adapt((weights.sigmoid() * learner(x[0]).square().sum(1)).mean())
        total = total + learner(x[1]).cos().mean()
    total.backward()
    return [total, weights.grad, *(p.grad for p in model.parameters())]


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


def in_processes(folder, count, function, *arguments):
    """Return what ``function(*arguments, rank, group)`` gives in each of ``count``."""
    context = multiprocessing.get_context("fork")
    options = (folder, count, function, arguments)
    members = [
        context.Process(target=member, args=(rank, *options), daemon=True)
        for rank in range(count)
    ]
    for process in members:
        process.start()
    for process in members:
        process.join(120)
    assert [process.exitcode for process in members] == [0] * count
    return [torch.load(folder / f"{rank}.pt") for rank in range(count)]


def member(rank, folder, count, function, arguments):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'store'}",
        rank=rank,
        world_size=count,
        timeout=timedelta(seconds=60),
    )
    found = function(*arguments, rank, distributed.group.WORLD)
    torch.save(found, folder / f"{rank}.pt")
    distributed.barrier()  # one that has sent nothing may still be looking for others
    distributed.destroy_process_group()
    os._exit(0)  # pytest's own clean-up is the parent's


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


def messages(update, steps, first_order, rank, group):
    """Return how many numbers each message has between two processes."""
    sizes = []

    def recorded(function):
        def send(tensor, *args, **kwargs):
            sizes.append(tensor.numel())
            return function(tensor, *args, **kwargs)

        return send

    distributed.all_reduce = recorded(distributed.all_reduce)
    distributed.broadcast = recorded(distributed.broadcast)
    estimator = EvoGrad(5, 0.05, 0.5, process_group=group)
    call_function(update, estimator, 5, steps, first_order)
    return torch.tensor(sizes)


SEED, LOSSES, LAMBDA, THETA = 1, 5, SAMPLES, 8


@pytest.mark.parametrize(
    ("case", "sizes"),
    [
        (("gradient", 1, True), [SEED, LAMBDA]),
        (("gradient", 2, False), [SEED, LAMBDA] * 2),
        (("evolution", 1, True), [SEED, LOSSES, LAMBDA]),
        (("evolution", 2, True), [*[SEED, LOSSES] * 2, LAMBDA, LAMBDA]),
        (("evolution", 2, False), [*[SEED, LOSSES] * 2, LAMBDA + THETA, LAMBDA]),
    ],
)
def test_the_seed_the_losses_and_one_sum_cross_and_no_more(tmp_path, case, sizes):
    for found in in_processes(tmp_path, 2, messages, *case):
        assert found.tolist() == sizes


def evaluations(rank, group):
    """Return how often each process evaluates the inner loss for 5 candidates."""
    count = 0

    def inner(params, lam):
        nonlocal count
        count += 1
        return (lam * params["w"]).square().sum()

    w, lam = {"w": numbers(3)}, numbers(3, seed=8)
    estimator = EvoGrad(5, 0.05, 0.5, process_group=group)
    for update in ("gradient", "evolution"):
        hypergradient(
            inner,
            lambda params, lam: params["w"].sum(),
            w,
            lam,
            lr=0.1,
            update=update,
            estimator=estimator,
            generator=torch.Generator().manual_seed(5),
        )
    return torch.tensor(count)


def test_each_process_evaluates_its_own_candidates_alone(tmp_path):
    # The loss itself and the candidates, once in each mode; in evolution 5 rows of λ
    # are more than the weights, and the pullback computes them again.
    counts = [int(found) for found in in_processes(tmp_path, 2, evaluations)]
    assert counts == [2 + 3 * 3, 2 + 3 * 2]


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
            ValueError, match=r"alone in common, got processes \[0, 1\] in both: "
        ):
            learn_online(
                update, EvoGrad(process_group=group), 5, "after", [rank], group
            )


def test_candidates_and_data_need_groups_of_their_own(tmp_path):
    in_processes(tmp_path, 2, with_one_group_for_both)


def as_a_value(rank, group):
    population = EvoGrad(4, process_group=group)
    assert copy.deepcopy(population).process_group is group
    assert copy.copy(population) == population
    meta = EvoGradMetaOptimizer(nn.Linear(1, 1), 0.1, estimator=population)
    assert copy.deepcopy(meta).estimator.process_group is group
    assert population == EvoGrad(4, process_group=group) != EvoGrad(4)
    assert hash(population) == hash(EvoGrad(4, process_group=group))
    assert repr(population) == repr(EvoGrad(4))
    with pytest.raises(TypeError, match=r"pickle .*ProcessGroup"):
        pickle.dumps(population)


def test_a_population_with_a_group_is_a_value_that_is_not_pickled(tmp_path):
    in_processes(tmp_path, 1, as_a_value)


def test_a_population_without_a_group_is_pickled():
    population = EvoGrad(4, noise="gaussian")
    assert pickle.loads(pickle.dumps(population)) == population


def test_what_is_no_group_is_refused():
    with pytest.raises(TypeError, match=r"process_group.*got str; use torch.distrib"):
        EvoGrad(process_group="gloo")


def test_one_process_has_all_candidates():
    processes = Processes()
    values = [torch.tensor(float(k)) for k in processes.share(3)]
    assert processes.gathered(values, 3).tolist() == [0, 1, 2]
    assert processes.sums(values) == values
