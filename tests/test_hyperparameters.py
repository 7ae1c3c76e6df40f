"""Which tensors are meant by the ways to name hyperparameters."""

import pytest
import torch
from torch import nn

from l2l_evograd.hyperparameters import (
    adapted_names,
    check_reached,
    find_hyperparameters,
    listed,
    name_of,
)


def model():
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))


def found(named, net=None):
    return [id(tensor) for tensor in find_hyperparameters(named, net)]


def ids(*tensors):
    return [id(tensor) for tensor in tensors]


def test_tensors_modules_and_names_mean_their_parameters_each_once():
    net, outside = model(), torch.ones(3, requires_grad=True)
    assert found(None, net) == []
    assert found(outside) == ids(outside)
    assert found(net[1]) == found("1", net) == ids(net[1].weight, net[1].bias)
    assert found("1.bias", net) == ids(net[1].bias)
    both = [outside, "1.bias", net[1], outside]
    assert found(both, net) == ids(outside, net[1].bias, net[1].weight)
    assert found({"a": outside, "b": "0.bias"}, net) == ids(outside, net[0].bias)
    assert found(net[1].parameters()) == ids(net[1].weight, net[1].bias)


def test_a_name_is_a_whole_part():
    net = nn.ModuleDict({"norm": nn.Linear(1, 1), "norm2": nn.Linear(1, 1)})
    assert found("norm", net) == ids(net["norm"].weight, net["norm"].bias)
    with pytest.raises(ValueError, match="got 'nor'; the model has norm.weight"):
        find_hyperparameters("nor", net)
    with pytest.raises(ValueError, match="the model has no parameters"):
        find_hyperparameters("nor")


def test_what_is_no_choice_is_refused():
    with pytest.raises(TypeError, match="tensors, modules or names, got float"):
        find_hyperparameters(0.5)
    with pytest.raises(TypeError, match="an item of type NoneType"):
        find_hyperparameters([None])
    with pytest.raises(ValueError, match="at least one hyperparameter, got an empty"):
        find_hyperparameters([])
    with pytest.raises(ValueError, match="call requires_grad_"):
        find_hyperparameters(torch.ones(2))
    assert listed("1") == ["1"] and listed((1, 2)) == [1, 2]


def test_the_rest_of_the_parameters_is_adapted():
    net = model()
    net[0].bias.requires_grad_(False)
    chosen = find_hyperparameters("1", net)
    assert adapted_names(net, chosen) == ["0.weight", "2.weight", "2.bias"]
    with pytest.raises(ValueError, match="no trainable parameters to adapt"):
        adapted_names(net[1], chosen)


def test_hyperparameters_that_are_not_reached_are_named():
    net, outside = model(), torch.ones(3)
    tensors = [net[1].weight, outside]
    names = [name_of(t, net, i) for i, t in enumerate(tensors)]
    assert names == ["1.weight", "hyperparameter 1"]
    check_reached([True, True], tensors, names)
    message = r"1 of the 2 hyperparameters: hyperparameter 1 \(3,\).*allow_unused=True"
    with pytest.raises(ValueError, match=message):
        check_reached([True, False], tensors, names)
    many = [torch.ones(1)] * 7
    with pytest.raises(ValueError, match=r"7 of the 7 .*: a0 \(1,\), .*, \.\.\."):
        check_reached([False] * 7, many, [f"a{i}" for i in range(7)])
