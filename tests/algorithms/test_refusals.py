"""What gets an error from the meta-optimizer and its learners, and what it says."""

import pytest
import torch
from classifiers import batch, network
from torch import nn
from torch.nn import functional as F

from l2l_evograd import EvoGradMetaOptimizer

pytestmark = pytest.mark.usefixtures("float64")


def learner_of(model=None, **kwargs):
    return EvoGradMetaOptimizer(network() if model is None else model, 0.1, **kwargs)


def test_a_model_that_is_no_module_is_refused():
    with pytest.raises(TypeError, match="model to be a torch.nn.Module, got function"):
        EvoGradMetaOptimizer(batch, 0.1)


@pytest.mark.parametrize("lr", [0, -1.0, float("nan"), float("inf"), None, "0.1"])
def test_a_learning_rate_that_is_none_is_refused(lr):
    with pytest.raises(ValueError, match="expected lr to be positive and finite, got"):
        EvoGradMetaOptimizer(network(), lr)


def test_a_model_without_trainable_parameters_is_refused():
    with pytest.raises(ValueError, match="no trainable parameters to adapt: .* ReLU"):
        EvoGradMetaOptimizer(nn.ReLU(), 0.1)
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="no trainable parameters to adapt"):
        EvoGradMetaOptimizer(model, 0.1, hyperparameters=model)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="update to be one of 'gradient', 'evolution'"):
        learner_of(update="newton")
    with pytest.raises(ValueError, match="estimator to be one of 'evograd', 'guided'"):
        learner_of(estimator="magic")
    with pytest.raises(
        ValueError, match="submodule of the model, got 'fwt'; the model"
    ):
        learner_of(hyperparameters="fwt")
    with pytest.raises(TypeError, match="generator to be a torch.Generator, got int"):
        learner_of(generator=3)


def test_hyperparameters_of_another_kind_are_refused():
    with pytest.raises(TypeError, match="tensors, modules or names, got int"):
        learner_of(hyperparameters=3)
    with pytest.raises(TypeError, match="names, got an item of type float"):
        learner_of(hyperparameters=[0.1])
    with pytest.raises(ValueError, match="at least one hyperparameter, got an empty"):
        learner_of(hyperparameters=[])
    with pytest.raises(ValueError, match=r"require grad, got one of shape \(2,\)"):
        learner_of(hyperparameters=torch.zeros(2))


def test_a_hyperparameter_that_the_inner_loss_does_not_reach_is_named():
    lam = torch.zeros(3, requires_grad=True)
    x, y = batch(1)
    learner = learner_of(hyperparameters=["1.weight", lam]).clone()
    message = r"does not depend on 1 of the 2 hyperparameters: hyperparameter 1 \(3,\)"
    with pytest.raises(ValueError, match=message):
        learner.adapt(F.cross_entropy(learner(x), y))
    learner.adapt(F.cross_entropy(learner(x), y), allow_unused=True)
    F.cross_entropy(learner(x), y).backward()
    assert lam.grad is None


def test_a_loss_that_is_no_finite_scalar_is_refused():
    x, y = batch(1)
    learner = learner_of().clone()
    with pytest.raises(ValueError, match=r"a scalar, got a tensor of shape \(10,\)"):
        learner.adapt(F.cross_entropy(learner(x), y, reduction="none"))
    with pytest.raises(ValueError, match="inner loss to be finite, got inf"):
        learner.adapt(F.cross_entropy(learner(x), y) / 0.0)
    with pytest.raises(TypeError, match="a scalar tensor, got float"):
        learner.adapt(0.5)
    with pytest.raises(TypeError, match="a scalar tensor, got float"):
        learner.adapt(lambda net: 0.5)


def test_a_loss_of_other_weights_or_without_gradients_is_refused():
    x, y = batch(1)
    learner = learner_of().clone()
    loss = F.cross_entropy(learner(x), y)
    with pytest.raises(ValueError, match="does not depend on the learner's present"):
        learner.adapt(torch.tensor(loss.item(), requires_grad=True))
    with torch.no_grad():
        silent = F.cross_entropy(learner(x), y)
    with pytest.raises(ValueError, match="does not require grad: .* torch.no_grad"):
        learner.adapt(silent)
    learner.adapt(loss)
    with pytest.raises(ValueError, match="does not depend on the learner's present"):
        learner.adapt(loss)


RECORDED = [
    {"memory": "recompute"},
    {"estimator": "guided"},
    {"estimator": "evograd"},
    {"update": "evolution"},
]


@pytest.mark.parametrize("settings", RECORDED, ids=str)
def test_a_loss_without_a_history_is_refused_where_it_is_computed_again(settings):
    lam = torch.ones((), requires_grad=True)
    if "memory" not in settings:
        settings = {**settings, "hyperparameters": lam, "allow_unused": True}
    x, y = batch(1)
    meta = learner_of(**settings)
    learner = meta.clone()
    loss = F.cross_entropy(learner(x), y)
    with pytest.raises(TypeError, match="was not recorded.* pass a callable"):
        learner.adapt(torch.tensor(loss.item(), requires_grad=True))
    with pytest.raises(TypeError, match="was not recorded.* pass a callable"):
        learner.adapt(F.cross_entropy(meta(x), y))
    other = F.cross_entropy(meta.clone()(x), y)
    with pytest.raises(ValueError, match="does not depend on the learner's present"):
        learner.adapt(other)
    learner.adapt(loss)
    with pytest.raises(ValueError, match="does not depend on the learner's present"):
        learner.adapt(loss)


def test_unknown_ways_to_keep_and_to_check_are_refused():
    with pytest.raises(ValueError, match="memory to be one of 'auto', 'graph', 'reco"):
        learner_of(memory="disk")
    with pytest.raises(ValueError, match="memory_limit, a number of bytes, to be"):
        learner_of(memory_limit=-1)
    with pytest.raises(ValueError, match="check to be one of 'first', 'always', 'nev"):
        learner_of(check="sometimes")


def test_adapting_the_original_is_refused():
    meta = learner_of()
    with pytest.raises(TypeError, match=r"call learner = meta.clone\(\) first"):
        meta.adapt(torch.zeros(()))


def test_unused_parameters_are_named_unless_allowed():
    model = nn.ModuleDict({"used": nn.Linear(4, 3), "spare": nn.Linear(2, 2)})
    x, y = batch(1)
    learner = learner_of(model).clone()
    with pytest.raises(ValueError, match="does not use 2 of the 4 .*: spare.weight"):
        learner.adapt(F.cross_entropy(learner.module["used"](x), y))
    learner = learner_of(model, allow_unused=True).clone()
    learner.adapt(F.cross_entropy(learner.module["used"](x), y))
    assert torch.equal(learner.module["spare"].weight, model["spare"].weight)
