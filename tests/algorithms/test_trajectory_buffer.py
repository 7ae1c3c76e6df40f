import pytest
import torch
from torch.nn import functional as F
from untouched import untouched
from warped import WARPS, Warped, batches, is_warp, objective

from l2l_evograd.algorithms.trajectory_buffer import TrajectoryBuffer
from l2l_evograd.algorithms.warpgrad import WarpGrad

pytestmark = pytest.mark.usefixtures("float64")

LR = 0.1


def filled(meta, data, capacity=100, seed=0):
    """Return a buffer with the points of one task; its batches name the points."""
    buffer = TrajectoryBuffer(capacity, generator=torch.Generator().manual_seed(seed))
    learner = meta.clone(first_order=True)
    for pair in data:
        support, _ = pair
        buffer.add(learner, pair)
        learner.adapt(F.cross_entropy(learner(support[0]), support[1]))
    return buffer


@pytest.mark.parametrize("first_order", [False, True])
def test_replayed_points_give_the_online_gradient(first_order):
    model, data = Warped(), batches(5)
    meta = WarpGrad(model, LR, warp=WARPS, first_order=first_order)
    with untouched(model):
        buffer = filled(meta, data)
    assert len(buffer) == 5
    for learner, (support, query) in buffer.replay(meta):
        learner.adapt(F.cross_entropy(learner(support[0]), support[1]))
        F.cross_entropy(learner(query[0]), query[1]).backward()
    assert len(buffer) == 0
    expected = objective(model, data, LR, first_order)
    for name, parameter in model.named_parameters():
        if is_warp(name):
            assert torch.allclose(parameter.grad, expected[name], 1e-12, 1e-12)
        else:
            assert parameter.grad is None


def test_replayed_learners_have_the_present_warp_parameters():
    model, data = Warped(), batches(2)
    meta = WarpGrad(model, LR, warp=WARPS)
    buffer = filled(meta, data)
    with torch.no_grad():
        model.warp1[0].weight.mul_(2)
    for learner, _ in buffer.replay(meta):
        assert learner.module.warp1[0].weight is model.warp1[0].weight


def test_a_full_buffer_is_a_uniform_sample_of_all_points():
    # Each of 12 points is kept with probability 3 / 12, in N independent buffers.
    n, points, capacity = 2000, 12, 3
    model = Warped()
    learner = WarpGrad(model, LR, warp=WARPS).clone()
    counts = torch.zeros(points)
    generator = torch.Generator().manual_seed(1)
    for _ in range(n):
        buffer = TrajectoryBuffer(capacity, generator=generator)
        for task in range(points):
            buffer.add(learner, task)
        assert len(buffer) == capacity
        for point in buffer._points:
            counts[point.task] += 1
    share = capacity / points
    error = (share * (1 - share) / n) ** 0.5
    assert ((counts / n - share).abs() < 4 * error).all()


def test_the_order_is_random_and_the_generator_decides():
    model, data = Warped(), batches(6)
    meta = WarpGrad(model, LR, warp=WARPS)

    def order(seed):
        buffer = filled(meta, data, seed=seed)
        drawn = [pair for _, pair in buffer.replay(meta)]
        return [next(i for i, d in enumerate(data) if d is pair) for pair in drawn]

    assert sorted(order(0)) == list(range(6))
    assert order(0) == order(0)
    assert len({tuple(order(seed)) for seed in range(5)}) > 1


def test_a_loop_that_ends_early_leaves_the_other_points():
    meta = WarpGrad(Warped(), LR, warp=WARPS)
    buffer = filled(meta, batches(4))
    for _ in buffer.replay(meta):
        break
    assert len(buffer) == 3
    buffer.clear()
    assert len(buffer) == 0


def test_stored_points_do_not_change_with_their_learner():
    meta = WarpGrad(Warped(), LR, warp=WARPS)
    learner = meta.clone()
    buffer = TrajectoryBuffer(2)
    buffer.add(learner, "task")
    with torch.no_grad():
        for weight in learner.parameters():
            weight += 1
    (other, task), *_ = buffer.replay(meta)
    assert task == "task"
    for weight, original in zip(other._weights(), meta.init_parameters(), strict=True):
        assert torch.equal(weight, original)


def test_bad_input_is_refused():
    meta = WarpGrad(Warped(), LR, warp=WARPS)
    buffer = TrajectoryBuffer(2)
    with pytest.raises(ValueError, match="the buffer is empty: .* add.learner, task."):
        buffer.replay(meta)
    with pytest.raises(TypeError, match="expected a learner, got the original"):
        buffer.add(meta, None)
    with pytest.raises(TypeError, match="expected a learner, got .*Warped"):
        buffer.add(Warped(), None)
    with pytest.raises(ValueError, match="capacity to be a whole number of at least 1"):
        TrajectoryBuffer(0)
    buffer.add(meta.clone(), None)
    with pytest.raises(ValueError, match="points of this model with 6 adapted"):
        next(buffer.replay(WarpGrad(Warped(width=7), LR, warp=WARPS)))
    assert len(buffer) == 1
    learner = next(buffer.replay(WarpGrad(Warped(), LR, warp=WARPS, init="reptile")))[0]
    x, y = batches(1)[0][0]
    learner.adapt(F.cross_entropy(learner(x), y))
    with pytest.raises(TypeError, match="init_loss.. belongs to a clone"):
        learner.init_loss()
