"""The Lightning modules of the other algorithms than EvoGrad."""

import copy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from episodic import (
    EACH,
    SIZES,
    WAYS,
    assert_same,
    fit,
    make_data,
    make_net,
    make_task,
)
from torch.nn import functional as F

from l2l_evograd import ARUBA, WarpGrad
from l2l_evograd.lightning import LightningARUBA, LightningWarpGrad

pytestmark = [
    # Lightning asks newer releases of torch in a way that they deprecate.
    pytest.mark.filterwarnings(r"ignore:.*isinstance\(treespec, LeafSpec\)"),
    # learn2learn's steps log to a logger even where there is none.
    pytest.mark.filterwarnings("ignore:You called `self.log"),
]

SETTINGS = {"lr": 0.02, "adaptation_steps": 2, **SIZES}
WARP = partial(LightningWarpGrad, warp="1", **SETTINGS)  # the norm is the warp
RATES = partial(LightningARUBA, **{**SETTINGS, "lr": 0.5, "adaptation_steps": 3})


def parts(seed):
    """Return the support and the query of a task."""
    data, labels = make_task(seed)
    support = [EACH * way + shot for way in range(WAYS) for shot in range(2)]
    query = [i for i in range(WAYS * EACH) if i not in support]
    return (data[support], labels[support]), (data[query], labels[query])


def loop(model, seeds, init, first_order=False):
    """WarpGrad's loop by hand, over several tasks."""
    meta = WarpGrad(model, 0.1, "1", init=init, first_order=first_order)
    for seed in seeds:
        (x, y), (x_query, y_query) = parts(seed)
        learner = meta.clone()
        for _ in range(2):
            learner.adapt(F.cross_entropy(learner(x), y))
            query = F.cross_entropy(learner(x_query), y_query)
            (query / 2 / len(seeds)).backward(retain_graph=True)
        if init == "reptile":
            (learner.init_loss() / len(seeds)).backward()
        elif init is not None:
            last = F.cross_entropy(learner(x), y) if init == "leap" else query
            (learner.init_loss(last) / len(seeds)).backward()
    return query.detach()


def same_gradients(module, model):
    for got, expected in zip(
        module.model.module.parameters(), model.parameters(), strict=True
    ):
        assert (got.grad is None) == (expected.grad is None)
        if got.grad is not None:
            torch.testing.assert_close(got.grad, expected.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("init", [None, "maml", "fomaml", "reptile", "leap"])
@pytest.mark.parametrize("first_order", [False, True])
def test_a_task_gives_warpgrads_gradients(init, first_order):
    module = WARP(make_net(), init=init, warp_first_order=first_order)
    error, accuracy = module.meta_learn(make_task(3), 0, WAYS, 2, 3)
    error.backward()
    model = make_net()
    expected = loop(model, [3], init, first_order)
    torch.testing.assert_close(error.detach(), expected)
    same_gradients(module, model)
    assert 0 <= accuracy <= 1


def test_several_tasks_give_the_mean_of_their_gradients():
    module = WARP(make_net())
    batch = [torch.stack(part) for part in zip(make_task(3), make_task(4), strict=True)]
    module.meta_learn(batch, 0, WAYS, 2, 3)[0].backward()
    model = make_net()
    loop(model, [3, 4], "maml")
    same_gradients(module, model)


def test_evaluation_adapts_without_a_graph():
    module = WARP(make_net())
    with torch.inference_mode():
        error, accuracy = module.meta_learn(make_task(3), 0, WAYS, 2, 3)
    assert not error.requires_grad and 0 <= accuracy <= 1
    assert all(p.grad is None for p in module.parameters())
    (x, y), (x_query, y_query) = parts(3)
    learner = WarpGrad(make_net(), 0.1, "1").clone()
    for _ in range(2):
        learner.adapt(F.cross_entropy(learner(x), y))
    torch.testing.assert_close(
        error, F.cross_entropy(learner(x_query), y_query).detach()
    )


MODULES = {"warpgrad": WARP, "aruba": RATES}


@pytest.mark.parametrize("name", MODULES)
def test_a_run_goes_on_from_its_checkpoint_bit_for_bit(name, tmp_path):
    make = MODULES[name]
    whole = make(make_net())
    trainer = fit(whole, max_epochs=2)
    path = tmp_path / "after.ckpt"
    trainer.save_checkpoint(path)
    start = copy.deepcopy(whole)
    fit(whole, max_epochs=4, ckpt_path=path)
    resumed = make(make_net())
    fit(resumed, seed=5, max_epochs=4, ckpt_path=path)
    assert_same(resumed, whole)
    moved = [
        not torch.equal(a, b)
        for a, b in zip(whole.parameters(), start.parameters(), strict=True)
    ]
    assert all(moved)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_trains_validates_tests_and_is_loaded(name, tmp_path):
    make = MODULES[name]
    module = make(make_net())
    trainer = fit(module, max_epochs=2)
    data = make_data()
    assert 0 <= trainer.test(module, datamodule=data, verbose=False)[0]["test_accuracy"]
    path = tmp_path / "end.ckpt"
    trainer.save_checkpoint(path)
    again = type(module).load_from_checkpoint(path, model=make_net(), warp="1")
    assert_same(again, module)
    assert again.adaptation_steps == module.adaptation_steps


def test_no_inner_steps_are_refused():
    with pytest.raises(ValueError, match="steps to be a whole number of at least"):
        LightningWarpGrad(make_net(), warp="1", adaptation_steps=0)
    with pytest.raises(ValueError, match="steps to be a whole number of at least"):
        LightningARUBA(make_net(), adaptation_steps=0)


def test_tasks_give_arubas_rates_and_reptiles_gradients():
    module = RATES(make_net())
    model = make_net()
    meta = ARUBA(model, 0.1)
    for seed in (3, 4):
        module.meta_learn(make_task(seed), 0, WAYS, 2, 3)[0].backward()
        (x, y), _ = parts(seed)
        learner = meta.clone()
        for _ in range(3):
            learner.adapt(F.cross_entropy(learner(x), y))
        meta.collect(learner)
        learner.init_loss().backward()
    same_gradients(module, model)
    assert module.model.tasks == 2
    for own, expected in zip(module.model.rates(), meta.rates(), strict=True):
        torch.testing.assert_close(own, expected)


def test_evaluation_changes_no_rates_and_may_use_falling_ones():
    plain, plus = RATES(make_net()), RATES(make_net(), plus=50.0)
    before = copy.deepcopy(plain.state_dict())
    errors = []
    with torch.no_grad():
        for module in (plain, plus):
            errors.append(module.meta_learn(make_task(3), 0, WAYS, 2, 3)[0])
    assert errors[0] != errors[1]
    for name, value in plain.state_dict().items():
        assert torch.equal(value, before[name])
    with pytest.raises(ValueError, match="expected plus to be"):
        RATES(make_net(), plus=-1.0)


def test_several_processes_are_refused_for_rates():
    module = RATES(make_net())
    module.trainer = SimpleNamespace(world_size=2)
    with pytest.raises(RuntimeError, match="expected one process, got 2: each would"):
        module.on_fit_start()
