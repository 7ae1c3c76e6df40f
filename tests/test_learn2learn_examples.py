import importlib.util
import itertools
import random
import shutil
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from learn2learn.algorithms import MAML, MetaSGD
from PIL import Image
from torch import nn

from l2l_evograd import EvoGradMetaOptimizer
from l2l_evograd.experiments.crossdomain.data.tasksets import get_tasksets
from l2l_evograd.layers import feature_transforms, feature_transforms_switched

EXAMPLES = Path(__file__).parents[1] / "examples" / "learn2learn"
ORDERS = pytest.mark.parametrize("first_order", [False, True])
pytestmark = pytest.mark.usefixtures("float64")


def load(name: str) -> ModuleType:
    path = EXAMPLES / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"learn2learn_example_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def print_tasks(shots, **options):
    return get_tasksets("print", 5, 2 * shots, 5, 2 * shots, **options)


def check_same(ours, theirs):
    assert len({*np.ravel(theirs)}) > 2
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@ORDERS
def test_maml_on_omniglot(first_order):
    script = load("maml_omniglot")
    script.SHOTS, script.TEST_TASKS = 2, 1
    tasks = script.make_tasks()
    run = partial(script.train, tasks=tasks, steps=2, adapt=2, first_order=first_order)
    check_same(run(EvoGradMetaOptimizer), run(MAML))


@pytest.mark.parametrize("packed", [False, True])
def test_omniglot_is_read_packed_or_unpacked(tmp_path, packed):
    for part, alphabets in ((1, ("Greek", "Latin")), (2, ("Greek", "Tagalog"))):
        name = f"images_background_small{part}"
        for alphabet, character in itertools.product(alphabets, range(5)):
            folder = tmp_path / name / alphabet / f"character{character}"
            folder.mkdir(parents=True)
            for copy in range(10):  # ink is black, more of it in later characters
                image = Image.new("1", (56, 56), color=1)
                image.paste(0, (0, 0, 56, 8 * (character + 1)))
                image.save(folder / f"{copy}.png")
        if packed:
            shutil.make_archive(str(tmp_path / name), "zip", tmp_path, name)
            shutil.rmtree(tmp_path / name)
    random.seed(0)
    training, test = load("maml_omniglot").make_tasks(tmp_path)
    assert (len(training.dataset), len(test.dataset)) == (100, 50)  # Greek is known
    images, labels = test.sample()
    assert images.shape == (50, 1, 28, 28)
    assert labels.bincount().tolist() == [10] * 5
    ink = sorted(images[labels == label].mean().item() for label in range(5))
    assert ink == pytest.approx([4 * n / 28 for n in range(1, 6)], abs=0.01)


@ORDERS
def test_maml_in_the_style_of_miniimagenet(first_order):
    script = load("maml_miniimagenet")
    script.SHOTS = 3
    tasks = print_tasks(script.SHOTS, image_size=16)
    ours, theirs = (
        script.train(method, tasks, 2, 1, first_order)
        for method in (EvoGradMetaOptimizer, MAML)
    )
    assert ours.keys() == theirs.keys() == {"training", "validation", "test"}
    for kind, figures in theirs.items():
        np.testing.assert_allclose(ours[kind], figures, rtol=1e-6)
    check_same(ours["training"], theirs["training"])


@ORDERS
def test_anil(first_order):
    script = load("anil")
    script.SHOTS = 3
    tasks = print_tasks(script.SHOTS)
    ours, theirs = (
        script.train(method, tasks, 2, 2, first_order)
        for method in (EvoGradMetaOptimizer, MAML)
    )
    for kind, figures in theirs.items():
        np.testing.assert_allclose(ours[kind], figures, rtol=1e-6)
    check_same(ours["training"], theirs["training"])


@ORDERS
def test_sine(first_order):
    script = load("sine")
    ours, theirs = (
        script.train(method, 4, 2, first_order)
        for method in (EvoGradMetaOptimizer, MAML)
    )
    check_same(ours[0], theirs[0])
    check_same(ours[1], theirs[1])


def test_the_loop_over_tasks_and_the_call_for_all_give_the_same(capsys):
    in_a_loop, at_once = load("tasks_at_once").main(steps=3)
    check_same(at_once.errors, in_a_loop.errors)
    assert "at once squared error" in capsys.readouterr().out


@ORDERS
def test_meta_sgd(first_order):
    script = load("meta_sgd")
    tasks = print_tasks(script.SHOTS, image_size=20)
    ours, theirs = (
        script.train(method, tasks, 4, 2, first_order)
        for method in (script.evograd, MetaSGD)
    )
    check_same(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-6, atol=1e-12)
    assert (ours[1] - script.FAST_LR).abs().max() > 1e-3


@ORDERS
def test_the_meta_gradients_of_meta_sgd(first_order):
    script = load("meta_sgd")
    task = print_tasks(script.SHOTS, image_size=20).train.sample()
    torch.manual_seed(1)
    model, gradients = script.make_model(), []
    for method in (script.evograd, MetaSGD):
        meta = method(deepcopy(model), lr=0.1, first_order=first_order)
        script.fast_adapt(task, meta.clone())[0].backward()
        named = meta.named_parameters()
        groups = [(n.startswith("module."), p.grad) for n, p in named]
        gradients.append([[g for own, g in groups if own is w] for w in (True, False)])
    assert len(gradients[0][1]) == len(list(model.parameters()))
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-7, atol=1e-12)


def test_the_transformation_of_maml_is_learned():
    figures, tested, moved = load("maml_feature_transforms").main(3, test_tasks=2)
    assert len(figures) == 6 and len(tested) == 2
    assert moved.abs().min() > 0 and moved.abs().mean() > 0.01


def test_the_gradient_of_the_transformation_is_the_derivative_by_hand():
    script = load("maml_feature_transforms")
    random.seed(0)
    torch.manual_seed(0)
    model, loss = script.make_model(), nn.CrossEntropyLoss()
    batch = script.make_tasks(script.SEEN, "base").sample()
    maml = EvoGradMetaOptimizer(
        model,
        lr=script.FAST_LR,
        first_order=False,
        hyperparameters=feature_transforms(model),
        estimator="exact",
    )
    torch.manual_seed(2)
    error, _ = script.fast_adapt(batch, maml.clone(), loss, 0, 1)
    error.backward()

    strengths = dict(model.named_parameters())
    weights = {n: strengths.pop(n) for n in list(strengths) if "theta_" not in n}
    call = torch.func.functional_call
    support = torch.arange(len(batch[1])) % 2 == 0
    torch.manual_seed(2)
    adapted = dict(weights)
    for _ in range(script.ADAPTATION_STEPS):
        out = call(model, {**strengths, **adapted}, (batch[0][support, 0],))
        inner = loss(out, batch[1][support])
        steps = torch.autograd.grad(inner, [*adapted.values()], create_graph=True)
        moves = zip(adapted.items(), steps, strict=True)
        adapted = {n: p - script.FAST_LR * g for (n, p), g in moves}
    with feature_transforms_switched(model, on=False):
        out = call(model, {**strengths, **adapted}, (batch[0][~support, 1],))
    outer = loss(out, batch[1][~support])
    torch.testing.assert_close(error, outer, rtol=1e-9, atol=0)
    everything = [*strengths.values(), *weights.values()]
    expected = torch.autograd.grad(outer, everything)
    assert max(g.abs().max() for g in expected[: len(strengths)]) > 1e-4
    torch.testing.assert_close(
        [p.grad for p in everything], list(expected), rtol=1e-7, atol=1e-11
    )


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.stem)
def test_the_header_shows_the_line_that_changed_and_the_command(path):
    header = path.read_text(encoding="utf-8").split('"""')[1]
    assert "Prints:" in header and "Time:" in header
    assert f"python examples/learn2learn/{path.name}" in header
    assert any(name in header for name in ("EvoGrad", "WarpGrad", "ARUBA"))


def test_warpgrad():
    found = load("warpgrad").main(
        meta_iterations=2, meta_batch_size=1, adaptation_steps=2, test_tasks=2
    )
    assert all(0 <= accuracy <= 1 for accuracy in found.values())


def test_reptile_with_arubas_rates():
    found = load("reptile_aruba").main(meta_iterations=2, seeds=1, test_tasks=3)
    assert sorted(found) == [0.005, 0.02, 0.05]
    assert np.isfinite(list(found.values())).all()
