import copy
import pickle

import learn2learn as l2l
import numpy as np
import pytest
import torch
from classifiers import assert_close, batch, meta_gradient, network
from torch import nn
from torch.nn import functional as F

from l2l_evograd import EvoGrad, EvoGradMetaOptimizer

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_the_meta_gradient_equals_that_of_learn2learns_maml(
    steps, first_order, activation
):
    ours = EvoGradMetaOptimizer(network(activation), lr=0.1, first_order=first_order)
    theirs = l2l.algorithms.MAML(network(activation), lr=0.1, first_order=first_order)
    assert_close(meta_gradient(ours, steps), meta_gradient(theirs, steps))


def test_a_callable_gives_what_the_loss_tensor_gives():
    tensor = meta_gradient(EvoGradMetaOptimizer(network(), lr=0.1), 3)

    def adapt(learner, x, y):
        learner.adapt(lambda net: F.cross_entropy(net(x), y))

    assert_close(tensor, meta_gradient(EvoGradMetaOptimizer(network(), 0.1), 3, adapt))


def fast_adapt(batch, learner, loss, adaptation_steps, shots, ways):
    """The loop of learn2learn's examples: alternate samples, masks of numpy."""
    data, labels = batch
    adaptation_indices = np.zeros(data.size(0), dtype=bool)
    adaptation_indices[np.arange(shots * ways) * 2] = True
    evaluation_indices = torch.from_numpy(~adaptation_indices)
    adaptation_indices = torch.from_numpy(adaptation_indices)
    adaptation_data, adaptation_labels = (
        data[adaptation_indices],
        labels[adaptation_indices],
    )
    evaluation_data, evaluation_labels = (
        data[evaluation_indices],
        labels[evaluation_indices],
    )
    for _ in range(adaptation_steps):
        train_error = loss(learner(adaptation_data), adaptation_labels)
        train_error /= len(adaptation_data)
        learner.adapt(train_error)
    predictions = learner(evaluation_data)
    valid_error = loss(predictions, evaluation_labels)
    valid_error /= len(evaluation_data)
    hits = (predictions.argmax(dim=1) == evaluation_labels).sum().float()
    return valid_error, hits / len(evaluation_labels)


@pytest.mark.parametrize("first_order", [False, True])
def test_an_unmodified_learn2learn_loop_trains_to_the_same_numbers(first_order):
    def train(algorithm):
        maml = algorithm(network(), lr=0.5, first_order=first_order)
        opt = torch.optim.Adam(maml.parameters(), 0.01)
        loss = nn.CrossEntropyLoss(reduction="mean")
        curve = []
        for iteration in range(3):
            opt.zero_grad()
            for task in range(2):
                learner = maml.clone()
                error, accuracy = fast_adapt(
                    batch(10 * iteration + task, 12), learner, loss, 2, 2, 3
                )
                error.backward()
                curve.append((error.item(), accuracy.item()))
            for p in maml.parameters():
                p.grad.data.mul_(1.0 / 2)
            opt.step()
        return curve

    ours, theirs = train(EvoGradMetaOptimizer), train(l2l.algorithms.MAML)
    assert np.allclose(ours, theirs, rtol=1e-8)


def states(model, *tensors):
    return [
        {k: v.clone() for k, v in model.state_dict().items()},
        [p.requires_grad for p in model.parameters()],
        [m.training for m in model.modules()],
        [len(m._forward_hooks) for m in model.modules()],
        [sorted(vars(m)) for m in model.modules()],
        [t.detach().clone() for t in tensors],
    ]


def same(first, second):
    for a, b in zip(first, second, strict=True):
        if isinstance(a, dict):
            assert all(torch.equal(a[k], b[k]) for k in a)
        elif a and isinstance(a[0], torch.Tensor):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        else:
            assert a == b


@pytest.mark.parametrize(
    ("update", "estimator"),
    [
        ("gradient", "exact"),
        ("gradient", "guided"),
        ("gradient", "evograd"),
        ("evolution", None),
    ],
)
def test_nothing_of_the_users_is_touched_except_grad(update, estimator):
    model = nn.Sequential(network(), nn.Dropout(0.3))
    model[0][0].weight.requires_grad_(False)
    calls = []
    handle = model[0].register_forward_hook(lambda *args: calls.append(1))
    lam = torch.zeros(10, requires_grad=True)
    x, y = batch(1)
    before = states(model, lam)
    meta = EvoGradMetaOptimizer(
        model, 0.1, hyperparameters=lam, update=update, estimator=estimator
    )
    torch.manual_seed(5)
    learner = meta.clone()
    learner.adapt((torch.sigmoid(lam) * F.cross_entropy(learner(x), y)).mean())
    loss = F.cross_entropy(learner(x), y)
    random_state = torch.get_rng_state()
    assert all(p.grad is None for p in [*model.parameters(), lam])
    loss.backward()
    same(before, states(model, lam))
    assert lam.grad is not None
    assert model[0][0].weight.grad is None
    assert torch.equal(random_state, torch.get_rng_state())
    # Two ordinary forward passes draw two dropout masks, and no more was drawn.
    torch.manual_seed(5)
    model.train()(x), model(x)
    assert torch.equal(random_state, torch.get_rng_state())
    handle.remove()


def test_batch_norm_statistics_of_a_learner_are_its_own_and_of_one_pass():
    model = network()
    meta = EvoGradMetaOptimizer(model, 0.1, first_order=False)
    plain = copy.deepcopy(model)
    x, y = batch(1)
    learner = meta.clone()
    learner.adapt(F.cross_entropy(learner(x), y))
    plain(x)
    assert torch.equal(learner.module[1].running_mean, plain[1].running_mean)
    F.cross_entropy(learner(x), y).backward()
    assert torch.equal(model[1].running_mean, torch.zeros(8))
    assert int(model[1].num_batches_tracked) == 0
    assert int(learner.module[1].num_batches_tracked) == 2


def test_parameters_state_dict_and_attributes_are_those_of_maml():
    model = network()
    model.note = "mine"
    ours = EvoGradMetaOptimizer(model, lr=0.1)
    theirs = l2l.algorithms.MAML(network(), lr=0.1)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in ours.named_parameters()] == [
        n for n, _ in theirs.named_parameters()
    ]
    assert all(
        a is b for a, b in zip(ours.parameters(), model.parameters(), strict=True)
    )
    assert ours.note == "mine"
    assert ours.clone().note == "mine"
    assert ours.lr == 0.1
    with pytest.raises(AttributeError, match="'Sequential' object has no attribute"):
        _ = ours.nothing_of_this_name
    theirs.load_state_dict(ours.state_dict())


def test_modes_and_conversions_reach_the_model():
    meta = EvoGradMetaOptimizer(network().eval(), lr=0.1)
    assert not meta.training and not meta.clone().training
    meta.train()
    assert meta.module[1].training and meta.clone().module[1].training
    learner = meta.clone()
    learner.eval()
    assert not learner.module[1].training and meta.module[1].training
    meta.to(torch.float32)
    assert meta.module[0].weight.dtype == torch.float32


def test_copies_and_pickles_adapt_as_the_original_does():
    model = network()
    outside = torch.zeros((), requires_grad=True)
    meta = EvoGradMetaOptimizer(
        model,
        0.1,
        hyperparameters=["1", outside],
        estimator=EvoGrad(4),
        generator=torch.Generator().manual_seed(3),
    )

    def run(meta):
        x, y = batch(1)
        learner = meta.clone()
        scale = meta.hyperparameters[-1].exp()
        learner.adapt(scale * F.cross_entropy(learner(x), y))
        loss = F.cross_entropy(learner(x), y)
        return torch.autograd.grad(loss, meta.hyperparameters)

    copied, unpickled = copy.deepcopy(meta), pickle.loads(pickle.dumps(meta))
    assert copied.hyperparameters[0] is copied.module[1].weight
    assert copied.hyperparameters[-1] is outside
    assert unpickled.hyperparameters[0] is unpickled.module[1].weight
    expected = run(meta)
    for other in (copied, unpickled):
        for a, b in zip(run(other), expected, strict=True):
            assert torch.equal(a, b)


def test_a_clone_returns_the_same_class_and_overrides_settings():
    class Mine(EvoGradMetaOptimizer):
        pass

    learner = Mine(network(), lr=0.1).clone(first_order=True, allow_unused=True)
    assert type(learner) is Mine
    assert learner.first_order is True and learner.allow_unused is True


def test_perturbations_follow_the_seed_and_differ_from_step_to_step():
    def run(seed=None, generator=None):
        if seed is not None:
            torch.manual_seed(seed)
        model = network()
        torch.manual_seed(seed if seed is not None else 0)
        meta = EvoGradMetaOptimizer(
            model, 0.1, update="evolution", first_order=True, generator=generator
        )
        x, y = batch(1)
        results = []
        for _ in range(2):
            learner = meta.clone()
            learner.adapt(F.cross_entropy(learner(x), y))
            results.append(learner.module[0].weight.detach())
        return results

    first, again, other = run(1), run(1), run(2)
    assert torch.equal(torch.stack(first), torch.stack(again))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0], first[1])
