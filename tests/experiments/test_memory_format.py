"""The memory layout that a method is trained in."""

import pytest
import torch

from l2l_evograd import EvoGrad, Exact, Guided
from l2l_evograd.experiments.memory_format import faster_layout

CPU = torch.device("cpu")


@pytest.mark.parametrize("estimator", [None, EvoGrad(), Guided()])
def test_first_order_methods_have_the_channels_innermost_on_a_cpu(estimator):
    assert faster_layout(estimator, CPU) is torch.channels_last
    assert faster_layout(estimator, torch.device("cuda")) is torch.contiguous_format


def test_second_order_has_them_outermost():
    assert faster_layout(Exact(), CPU) is torch.contiguous_format
