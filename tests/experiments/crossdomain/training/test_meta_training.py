import copy

import pytest
import torch
from tiny import WAYS, silent_console, tiny_dataset, tiny_model, tiny_pairs

from l2l_evograd.bilevel import bilevel_gradients
from l2l_evograd.experiments.crossdomain.data.episode_stream import ClassBatches
from l2l_evograd.experiments.crossdomain.methods import METHODS
from l2l_evograd.experiments.crossdomain.networks.heads import few_shot_loss
from l2l_evograd.experiments.crossdomain.training.meta_training import (
    HYPER_WEIGHT_DECAY,
    MetaTraining,
)
from l2l_evograd.experiments.training import train
from l2l_evograd.layers import (
    add_feature_transforms,
    feature_transforms,
    feature_transforms_switched,
)
from l2l_evograd.seeds import derive_seed, generator_for, seeded

CPU = torch.device("cpu")
LEARNED = [name for name, method in METHODS.items() if method.learned]


def trained(
    name: str, tmp_path, iterations: int = 1, scaling=(), **options
) -> MetaTraining:
    method = METHODS[name]
    model = copy.deepcopy(tiny_model())
    if method.uses_lambda:
        add_feature_transforms(model.backbone)
    module = MetaTraining(
        model,
        method,
        tiny_pairs(),
        ways=WAYS,
        lr=1e-3,
        meta_lr=1e-3,
        seed=0,
        iterations=iterations,
        block=iterations,
        **options,
    )
    module.scaling = list(scaling)
    train(
        module,
        name=name,
        out=tmp_path,
        device=CPU,
        console=silent_console(),
    )
    return module


def test_without_learning_an_iteration_is_an_adam_step_on_the_pseudo_seen_episode(
    tmp_path,
):
    module = trained("ft", tmp_path)
    model = tiny_model()
    add_feature_transforms(model.backbone)
    thetas = {id(p) for p in feature_transforms(model).parameters()}
    weights = [p for p in model.parameters() if id(p) not in thetas]
    optimizer = torch.optim.Adam(weights, lr=1e-3)
    with seeded(derive_seed(0, "forward", 0), CPU):
        loss = few_shot_loss(model, tiny_pairs().pair(0).seen, WAYS)
        loss.backward()
    optimizer.step()
    assert module.losses == [float(loss.detach())]
    for name, value in model.state_dict().items():
        assert torch.equal(module.model.state_dict()[name], value), name


def test_the_fixed_transformation_stays_as_it_was(tmp_path):
    assert set(trained("ft", tmp_path, 2).movement().values()) == {0.0}


def test_without_transformation_nothing_is_named_as_moved(tmp_path):
    assert trained("none", tmp_path).movement() == {}


@pytest.mark.parametrize("name", LEARNED)
def test_learning_moves_every_transformation_by_a_step(name: str, tmp_path):
    module = trained(name, tmp_path)
    moved = module.movement()
    assert len(moved) == 8  # two for each of the four blocks
    # Adam's first step has the length of its rate, whatever the gradient's.
    assert all(0 < distance <= 1.001e-3 for distance in moved.values())


@pytest.mark.parametrize("name", LEARNED)
def test_the_weights_take_the_same_first_step_whether_transformation_is_learned(
    name: str, tmp_path
):
    learned, fixed = trained(name, tmp_path), trained("ft", tmp_path)
    assert learned.losses == pytest.approx(fixed.losses, rel=1e-6)
    for own, other in zip(learned.weights, fixed.weights, strict=True):
        # Adam's first step is ±lr, so a gradient of nothing but rounding may flip it.
        agreeing = torch.isclose(own, other, rtol=0, atol=1e-5).float().mean()
        assert agreeing > 0.99


def stay(*_) -> None:
    """Take the gradients that Algorithm 1 finds, and leave the weights."""


def averaged_by_hand(name: str, pairs: int) -> tuple[dict, dict]:
    """The mean of each pair's own gradient and hypergradient, and the losses."""
    model = tiny_model()
    add_feature_transforms(model.backbone)
    hyper = list(feature_transforms(model).parameters())
    taken = {id(p) for p in hyper}
    weights = [p for p in model.parameters() if id(p) not in taken]
    sums = [torch.zeros_like(p) for p in (*weights, *hyper)]
    losses = []
    for number in range(pairs):
        pair = tiny_pairs().pair(number)

        def outer(view, pair=pair):
            with feature_transforms_switched(view, False):
                return few_shot_loss(view, pair.unseen, WAYS)

        with seeded(derive_seed(0, "forward", number), CPU):
            found = bilevel_gradients(
                model,
                lambda view, pair=pair: few_shot_loss(view, pair.seen, WAYS),
                outer,
                hyperparameters=hyper,
                lr=1e-3,
                update=METHODS[name].update,
                estimator=METHODS[name].estimator,
                generator=generator_for(0, "perturbations", number),
                move=stay if METHODS[name].update == "evolution" else None,
            )
        losses.append(float(found.inner_loss))
        gradients = [*found.gradients.values(), *found.hypergradient]
        for total, gradient in zip(sums, gradients, strict=True):
            total += gradient / pairs
    for parameter, total in zip((*weights, *hyper), sums, strict=True):
        parameter.grad = total
    torch.optim.Adam(weights, lr=1e-3).step()
    torch.optim.Adam(hyper, lr=1e-3, weight_decay=HYPER_WEIGHT_DECAY).step()
    return model.state_dict(), losses


@pytest.mark.parametrize("name", ["lft-exact", "lft-guided", "lft-evograd"])
def test_accumulated_pairs_give_the_mean_of_their_gradients(name: str, tmp_path):
    module = trained(name, tmp_path, accumulate=2)
    expected, losses = averaged_by_hand(name, pairs=2)
    assert module.losses == pytest.approx([sum(losses) / 2], rel=1e-6)
    for key, value in module.model.state_dict().items():
        # Adam's first step is ±lr, so a gradient of nothing but rounding may flip it.
        close = torch.isclose(value, expected[key], rtol=0, atol=1e-6)
        assert close.float().mean() > 0.99, key


def test_accumulation_without_a_hypergradient_is_the_step_of_the_mean_loss(tmp_path):
    module = trained("none", tmp_path, accumulate=3)
    model = tiny_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = [
        few_shot_loss(model, tiny_pairs().pair(number).seen, WAYS)
        for number in range(3)
    ]
    (sum(losses) / 3).backward()
    optimizer.step()
    assert module.losses == pytest.approx([float(sum(losses).detach()) / 3], rel=1e-6)
    for own, other in zip(module.weights, model.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["none", "lft-guided", "lft-evograd"])
def test_the_auxiliary_loss_is_added_to_the_gradient_of_the_weights(
    name: str, tmp_path
):
    batches = ClassBatches(tiny_dataset("pre"), 6, seed=0)
    without = trained(name, tmp_path / "without")
    alone = [parameter.grad for parameter in without.weights]
    module = trained(name, tmp_path / "with", auxiliary=batches)
    both = [p.grad for p in (*module.weights, *module.auxiliary.parameters())]
    assert module.losses == without.losses
    if name != "lft-evograd":  # whose population surrounds the weights after the step
        assert module.movement() == without.movement()
    model = tiny_model()
    if METHODS[name].uses_lambda:
        add_feature_transforms(model.backbone)
    fresh = MetaTraining(
        model,
        METHODS[name],
        tiny_pairs(),
        ways=2,
        lr=1e-3,
        meta_lr=1e-3,
        seed=0,
        iterations=1,
        block=1,
        auxiliary=batches,
    )
    # The episode has moved the statistics before they are used.
    buffers = dict(without.model.named_buffers())
    for key, value in fresh.model.named_buffers():
        value.copy_(buffers[key])
    images, labels = batches.batch(0)
    fresh.model.eval()
    maps = fresh.model.backbone(images)
    scores = fresh.auxiliary.layers(maps.mean((-2, -1)))
    loss = torch.nn.functional.cross_entropy(scores, labels)
    parameters = [*fresh.weights, *fresh.auxiliary.parameters()]
    expected = torch.autograd.grad(loss, parameters, allow_unused=True)
    for own, other, extra in zip([*alone, *[None] * 6], both, expected, strict=True):
        total = sum(x for x in (own, extra) if x is not None)
        torch.testing.assert_close(other, total, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *((name, "bf16") for name in ("none", *LEARNED)),
        *((name, "fp16") for name in ("none", "lft-evograd", "lft-guided")),
    ],
)
def test_half_precision_goes_the_same_way(name: str, precision: str, tmp_path):
    half = trained(name, tmp_path / "half", precision=precision)
    full = trained(name, tmp_path / "full")
    assert half.losses == pytest.approx(full.losses, rel=0.1)
    assert half.losses != full.losses
    assert half.scaling == ([1024.0, 1.0] if precision == "fp16" else [])
    same, count = 0, 0
    for own, other, begin in zip(
        half.weights, full.weights, tiny_model().parameters(), strict=True
    ):
        assert own.dtype == torch.float32
        same += int(((own - begin).sign() == (other - begin).sign()).sum())
        count += own.numel()
    assert same / count > 0.9  # of the steps of ±lr that Adam begins with
    assert all(0 < distance for distance in half.movement().values())


def test_a_step_that_overflows_is_left_out(tmp_path):
    """A scale of 2^40 makes the losses themselves overflow float16."""
    module = trained("lft-guided", tmp_path, precision="fp16", scaling=[2.0**40, 0.0])
    assert module.scaling == [2.0**39, 0.0]
    assert set(module.movement().values()) == {0.0}
    for own, before in zip(module.weights, tiny_model().parameters(), strict=True):
        assert torch.equal(own, before)


def test_workers_change_nothing(tmp_path):
    alone = trained("lft-guided", tmp_path / "alone", 3)
    helped = trained("lft-guided", tmp_path / "helped", 3, workers=1)
    assert helped.losses == alone.losses
    for name, value in alone.model.state_dict().items():
        assert torch.equal(helped.model.state_dict()[name], value), name


def test_the_strength_of_each_layer_is_noted(tmp_path):
    module = trained("lft-guided", tmp_path, 2)
    assert [point["iteration"] for point in module.strengths] == [0, 2]
    first, last = (point["layers"] for point in module.strengths)
    assert len(first) == len(last) == 4
    for layer in first.values():
        assert layer == pytest.approx({"gamma": 0.3, "beta": 0.5}, abs=1e-6)
    assert all(first[name] != last[name] for name in first)


def test_accuracies_are_kept(tmp_path):
    module = trained("ft", tmp_path, 3)
    assert len(module.accuracies) == 3
    assert all(value in {0.0, 0.25, 0.5, 0.75, 1.0} for value in module.accuracies)
