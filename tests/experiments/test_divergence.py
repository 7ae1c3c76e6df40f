import math

import pytest
import torch
from torch import nn

from l2l_evograd.checks import NotFiniteError
from l2l_evograd.experiments.divergence import check_training_loss, check_weights


def test_a_loss_that_is_not_finite_ends_the_training():
    check_training_loss(3.0, 0)
    for loss in (math.nan, math.inf):
        with pytest.raises(
            NotFiniteError, match=r"loss is (nan|inf) in iteration 5; lo"
        ):
            check_training_loss(loss, 4)


@pytest.mark.parametrize("name", ["0.weight", "1.running_var"])
def test_weights_that_are_not_finite_are_named(name):
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    check_weights(module)
    with torch.no_grad():
        module.state_dict()[name].view(-1)[1] = math.inf
    with pytest.raises(NotFiniteError, match=f"{name} is not finite"):
        check_weights(module)
