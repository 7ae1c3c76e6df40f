import argparse
import copy
import importlib.util
import sys

import learn2learn as l2l
import pytest
import torch
from episodic import (
    EACH,
    SIZES,
    WAYS,
    ClassWeights,
    Weighted,
    fit,
    make_data,
    make_module,
    make_net,
    make_task,
    make_trainer,
)
from learn2learn.algorithms.lightning import LightningMAML
from learn2learn.utils.lightning import EpisodicBatcher
from torch import nn

from l2l_evograd.lightning import LightningEvoGrad

pytestmark = [
    # Lightning asks newer releases of torch in a way that they deprecate.
    pytest.mark.filterwarnings(r"ignore:.*isinstance\(treespec, LeafSpec\)"),
    # learn2learn's steps log to a logger even where there is none.
    pytest.mark.filterwarnings("ignore:You called `self.log"),
]

EVOGRAD = {"hyperparameters": "4", "estimator": "evograd", "first_order": False}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_fit_validate_and_test_give_the_figures_of_lightning_maml(accumulate):
    def figures(method, **options):
        module = make_module(method, dropout=0.2)
        trainer = fit(module, accumulate_grad_batches=accumulate, **options)
        met = dict(trainer.callback_metrics)
        data = make_data()
        met |= trainer.validate(module, datamodule=data, verbose=False)[0]
        met |= trainer.test(module, datamodule=data, verbose=False)[0]
        return module, {name: float(value) for name, value in met.items()}

    ours, our_figures = figures(LightningEvoGrad)
    # LightningMAML's testing fails in inference mode.
    theirs, their_figures = figures(LightningMAML, inference_mode=False)
    stages, kinds = ("train", "valid", "test"), ("loss", "accuracy")
    assert sorted(our_figures) == sorted(f"{s}_{k}" for s in stages for k in kinds)
    assert our_figures == pytest.approx(their_figures, rel=1e-6)
    for (name, value), expected in zip(
        ours.named_parameters(), theirs.parameters(), strict=True
    ):
        torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-10, msg=name)
    start = make_net().state_dict()["0.weight"]
    assert not torch.allclose(ours.model.module[0].weight, start, atol=1e-2)


@pytest.mark.parametrize("first_order", [False, True])
def test_one_task_gives_the_gradients_of_a_loop_written_by_hand(first_order):
    module = make_module(first_order=first_order)
    data, labels = make_task(3)
    error, accuracy = module.meta_learn([data, labels], 0, WAYS, 2, 3)
    error.backward()
    assert type(error) is torch.Tensor

    model = make_net()
    learner = l2l.algorithms.MAML(model, lr=0.1, first_order=first_order).clone()
    support = [EACH * way + shot for way in range(WAYS) for shot in range(2)]
    query = [i for i in range(WAYS * EACH) if i not in support]
    for _ in range(2):
        learner.adapt(
            nn.functional.cross_entropy(learner(data[support]), labels[support])
        )
    outputs = learner(data[query])
    expected = nn.functional.cross_entropy(outputs, labels[query])
    expected.backward()
    assert error.item() == pytest.approx(expected.item(), rel=1e-12)
    hits = (outputs.argmax(1) == labels[query]).double().mean()
    assert float(accuracy) == pytest.approx(float(hits))
    for parameter, other in zip(module.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-9, atol=1e-12)


def test_evaluation_keeps_no_graph_and_changes_nothing():
    module = make_module(**EVOGRAD)
    before = copy.deepcopy(module.state_dict())
    with torch.inference_mode():
        task = [tensor.clone() for tensor in make_task(0)]
        assert task[0].is_inference()
        error, accuracy = module.meta_learn(task, 0, WAYS, 2, 3)
    assert not error.requires_grad and not accuracy.requires_grad
    trained, _ = module.meta_learn(make_task(0), 0, WAYS, 2, 3)
    assert float(error) == pytest.approx(trained.item(), rel=1e-12)
    make_trainer().validate(module, datamodule=make_data(), verbose=False)
    assert all(parameter.grad is None for parameter in module.parameters())
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_tasks_kept_from_inference_mode_can_be_trained_on():
    class Kept:
        def __init__(self):
            self.task = None

        def sample(self):
            if self.task is None:
                self.task = [tensor.clone() for tensor in make_task(0)]
            return self.task

    tasks, module = Kept(), make_module()
    data = EpisodicBatcher(tasks, epoch_length=2)
    make_trainer().validate(module, datamodule=data, verbose=False)
    assert tasks.task[0].is_inference()
    fit(module, data, max_epochs=1)


def test_hyperparameters_outside_the_model_become_part_of_the_module(tmp_path):
    weights = ClassWeights()
    module = Weighted(weights, lr=0.02)
    own = {id(parameter) for parameter in module.parameters()}
    assert id(weights.logits) in own
    assert len(own) == len(list(make_net().parameters())) + 1
    (optimizer,), _ = module.configure_optimizers()
    assert own == {id(p) for group in optimizer.param_groups for p in group["params"]}
    before = weights.logits.detach().clone()
    trainer = fit(module)
    assert not torch.allclose(weights.logits, before, atol=1e-3)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    again = Weighted(ClassWeights())
    fit(again, max_epochs=3, ckpt_path=tmp_path / "end.ckpt")
    assert torch.equal(again.weights.logits, weights.logits)


def test_the_hypergradient_of_outside_hyperparameters_is_the_exact_one():
    module = Weighted(ClassWeights(), estimator="exact", adaptation_lr=0.3)
    error, _ = module.meta_learn(make_task(5), 0, WAYS, 2, 3)
    error.backward()
    step = 1e-5

    def outer(way, shift):
        weights = ClassWeights()
        with torch.no_grad():
            weights.logits[way] += shift
        other = Weighted(weights, adaptation_lr=0.3)
        with torch.no_grad():
            return float(other.meta_learn(make_task(5), 0, WAYS, 2, 3)[0])

    for way in range(WAYS):
        slope = (outer(way, step) - outer(way, -step)) / (2 * step)
        assert float(module.weights.logits.grad[way]) == pytest.approx(slope, rel=1e-6)


def test_kinds_of_hyperparameters_are_registered_once():
    model = make_net()
    parameter = nn.Parameter(torch.ones(2))
    module = LightningEvoGrad(
        model, **SIZES, hyperparameters=iter([parameter, ClassWeights(), "0", model[1]])
    )
    inside = {f"model.module.{name}" for name, _ in model.named_parameters()}
    names = {name for name, _ in module.named_parameters()}
    assert names == inside | {"outside.0.0", "outside.1.logits"}
    assert len(module.model.hyperparameters) == 1 + 1 + 1 + 2
    assert len(LightningEvoGrad(make_net(), **SIZES, hyperparameters="0").outside) == 0
    named = LightningEvoGrad(make_net(), **SIZES, hyperparameters={"a": parameter})
    assert named.model.hyperparameters == [parameter]
    loss = ClassWeights()
    inner = LightningEvoGrad(make_net(), loss, **SIZES, hyperparameters=loss)
    assert [name for name, _ in inner.named_parameters() if "logits" in name] == [
        "loss.logits"
    ]


def test_a_deep_copy_has_hyperparameters_of_its_own():
    module = Weighted(ClassWeights())
    copied = copy.deepcopy(module)
    (tensor,) = copied.model.hyperparameters
    assert tensor is copied.weights.logits is not module.weights.logits


def test_bad_arguments_are_refused():
    def refused(message, error=ValueError, **options):
        with pytest.raises(error, match=message):
            make_module(**options)

    refused("as many test_ways as train_ways, got 4 and 3: the model's", test_ways=4)
    refused("train_queries to be a whole number of at least 1, got 0", train_queries=0)
    refused("adaptation_steps to be a whole number of at least 0", adaptation_steps=-1)
    refused("data_parallel=True .* strategy='ddp'", data_parallel=True)
    refused("positive", adaptation_lr=-1.0)
    refused("has 0.weight", hyperparameters="head")
    refused(
        r"nn.Parameter, .* got a tensor of shape \(2,\); wrap it",
        TypeError,
        hyperparameters=torch.ones(2, requires_grad=True),
    )
    refused("got int", TypeError, hyperparameters=3)


def test_other_arguments_of_a_command_line_are_left_alone():
    make_module(dataset="cifarfs", root="~/data", meta_batch_size=4)


def test_tasks_of_another_size_are_refused():
    module, (data, labels) = make_module(), make_task(0)
    message = (
        r"3 ways · \(2 shots \+ 3 queries\) = 15 images, .* got 14; make tasks of 5 "
        r"samples .* batch_size=None"
    )
    with pytest.raises(ValueError, match=message):
        module.meta_learn([data[:-1], labels[:-1]], 0, WAYS, 2, 3)
    with pytest.raises(ValueError, match="= 12 images, .* got 15"):
        module.meta_learn([data, labels], 0, WAYS, 2, 2)
    with pytest.raises(ValueError, match="= 15 images, .* got 14;"):
        module.meta_learn([data[None, :-1], labels[None, :-1]], 0, WAYS, 2, 3)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [{}, {"first_order": True}])
def test_a_batch_of_several_tasks_is_their_mean(training, options):
    module, tasks = make_module(**options), [make_task(seed) for seed in range(3)]
    batch = [torch.stack(parts) for parts in zip(*tasks, strict=True)]
    with torch.set_grad_enabled(training):
        singles = [module.meta_learn(task, 0, WAYS, 2, 3) for task in tasks]
        error, accuracy = module.meta_learn(batch, 0, WAYS, 2, 3)
    expected = torch.stack([error for error, _ in singles]).mean()
    assert error.item() == pytest.approx(expected.item(), rel=1e-12)
    mean = sum(float(one) for _, one in singles) / 3
    assert float(accuracy) == pytest.approx(mean, abs=1e-6)
    assert error.requires_grad is training
    if training:
        weights = list(module.parameters())
        for one, other in zip(
            torch.autograd.grad(error, weights),
            torch.autograd.grad(expected, weights),
            strict=True,
        ):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_several_tasks_leave_layers_in_evaluation_mode_as_they_are():
    module = make_module()
    norm = module.model.module[1].eval()
    batch = [
        torch.stack(parts) for parts in zip(make_task(0), make_task(1), strict=True)
    ]
    module.meta_learn(batch, 0, WAYS, 2, 3)
    assert not norm.training and module.model.module.training


def test_hyperparameters_get_their_gradient_from_several_tasks():
    found = []
    for several in (True, False):
        weights = ClassWeights()
        module = Weighted(weights, adaptation_steps=2)
        tasks = [make_task(seed) for seed in range(2)]
        if several:
            batch = [torch.stack(parts) for parts in zip(*tasks, strict=True)]
            error, _ = module.meta_learn(batch, 0, WAYS, 2, 3)
        else:
            error = sum(module.meta_learn(t, 0, WAYS, 2, 3)[0] for t in tasks) / 2
        error.backward()
        found.append([p.grad for p in weights.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
        assert one.any()


def test_no_adaptation_step_is_a_network_that_is_not_adapted():
    module, (data, labels) = make_module(adaptation_steps=0), make_task(0)
    query = torch.arange(WAYS * EACH) % EACH >= 2
    error, _ = module.meta_learn([data, labels], 0, WAYS, 2, 3)
    expected = nn.functional.cross_entropy(make_net()(data[query]), labels[query])
    assert error.item() == pytest.approx(expected.item(), rel=1e-12)


def test_options_of_the_command_line():
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--dataset", default="print")
    parser = LightningEvoGrad.add_model_specific_args(parser)
    theirs = LightningMAML.add_model_specific_args(argparse.ArgumentParser())
    defaults = vars(parser.parse_args([]))
    for name, value in vars(theirs.parse_args([])).items():
        assert name == "data_parallel" or defaults[name] == value
    given = ["--adaptation_steps", "3", "--estimator", "exact", "--first_order"]
    module = LightningEvoGrad(make_net(), **vars(parser.parse_args(given)))
    assert module.adaptation_steps == 3
    assert module.estimator == "exact"
    assert module.model.first_order is True


@pytest.mark.parametrize(
    "missing", ["pytorch_lightning", "learn2learn.algorithms.lightning"]
)
def test_what_is_missing_is_said_with_how_to_install_it(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    spec = importlib.util.find_spec("l2l_evograd.lightning.episodic")
    message = rf"needs {missing.split('.')[0]}, .* 'l2l-evograd\[fewshot\]'"
    with pytest.raises(ModuleNotFoundError, match=message):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
