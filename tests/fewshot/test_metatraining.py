import copy

import pytest
import torch
from tiny import SIDE, silent_console, tiny_dataset, tiny_domains

from l2l_evograd.fewshot.backbones import make_backbone
from l2l_evograd.fewshot.heads import FewShotModel, few_shot_loss, make_head
from l2l_evograd.fewshot.metatraining import EpisodePairs, MetaTraining
from l2l_evograd.fewshot.methods import METHODS
from l2l_evograd.fewshot.pretraining import Pretraining
from l2l_evograd.layers import add_feature_transforms, feature_transforms
from l2l_evograd.runs.randomness import derive_seed, seeded
from l2l_evograd.runs.training import train

CPU = torch.device("cpu")
SHAPE = (2, 1, 2)
LEARNED = [name for name, method in METHODS.items() if method.learned]


def episode_pairs() -> EpisodePairs:
    domains = {name: d.splits["base"] for name, d in tiny_domains().items()}
    return EpisodePairs(domains, SHAPE, seed=0)


def start() -> FewShotModel:
    with seeded(1, CPU):
        backbone = make_backbone("cnn4", SIDE)
        return FewShotModel(backbone, make_head("protonet", backbone))


def trained(name: str, tmp_path, iterations: int = 1) -> MetaTraining:
    method = METHODS[name]
    model = copy.deepcopy(start())
    if method.transforms:
        add_feature_transforms(model.backbone)
    module = MetaTraining(
        model,
        method,
        episode_pairs(),
        ways=SHAPE[0],
        lr=1e-3,
        meta_lr=1e-3,
        seed=0,
        iterations=iterations,
        block=iterations,
    )
    train(
        module,
        name=name,
        epochs=1,
        iterations=iterations,
        out=tmp_path,
        device=CPU,
        console=silent_console(),
    )
    return module


def test_the_two_domains_of_an_iteration_differ_and_all_get_their_turn():
    pairs = episode_pairs()
    names = [pairs.names(iteration) for iteration in range(60)]
    assert all(seen != unseen for seen, unseen in names)
    assert len(set(names)) == 6


def test_an_iteration_has_the_same_episodes_whenever_it_is_asked():
    first, second = episode_pairs(), episode_pairs()
    second.pair(5, CPU)
    for a, b in zip(first.pair(3, CPU), second.pair(3, CPU), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_without_learning_an_iteration_is_an_adam_step_on_the_pseudo_seen_episode(
    tmp_path,
):
    module = trained("ft", tmp_path)
    model = start()
    add_feature_transforms(model.backbone)
    thetas = {id(p) for p in feature_transforms(model).parameters()}
    weights = [p for p in model.parameters() if id(p) not in thetas]
    optimizer = torch.optim.Adam(weights, lr=1e-3)
    with seeded(derive_seed(0, "forward", 0), CPU):
        loss = few_shot_loss(model, episode_pairs().pair(0, CPU).seen, SHAPE[0])
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


def test_pretraining_learns_the_classes(tmp_path):
    dataset = tiny_dataset("pre")
    module = Pretraining(start().backbone, dataset, 1e-2, seed=0, batch_size=12)
    assert module.batches == 2
    train(
        module,
        name="pre",
        epochs=10,
        iterations=20,
        out=tmp_path,
        device=CPU,
        console=silent_console(),
    )
    assert len(module.losses) == 20
    assert module.losses[-1] < 0.5 * module.losses[0]
    assert module.correct[-1] > 0.7


def test_an_epoch_of_pretraining_sees_every_image_once():
    dataset = tiny_dataset("pre")
    module = Pretraining(start().backbone, dataset, 1e-2, seed=0, batch_size=10)
    images = torch.cat([module._batch(i)[0] for i in range(module.batches)])
    expected = torch.stack([image for image, _ in dataset])  # type: ignore[attr-defined]
    assert len(images) == len(dataset)
    sums, expected_sums = images.flatten(1).sum(1), expected.flatten(1).sum(1)
    assert torch.equal(sums.sort()[0], expected_sums.sort()[0])
