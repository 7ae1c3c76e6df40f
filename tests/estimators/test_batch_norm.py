"""Batch normalisation by fused kernels has the tangents of torch's own."""

import pytest
import torch
from torch.autograd import forward_ad

from l2l_evograd.estimators.batch_norm import INSTEAD, batch_norm

# torch loads its own formulas of tangents by a way that it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

SHAPES = {"planes": (6, 3, 4, 5), "rows": (7, 3), "lines": (6, 3, 5)}


def own(*arguments):
    return torch.ops.aten.native_batch_norm.default(*arguments)[:1]


def derivatives(function, given, tangents, training=True, running=False):
    """The result, its gradients, and the tangents of all."""
    statistics = [None, None]
    if running or not training:
        statistics = [
            torch.full((3,), value, dtype=torch.float64) for value in (0.5, 2)
        ]
    with forward_ad.dual_level():
        duals = [
            t
            if t is None
            else t.clone().requires_grad_()
            if d is None
            else forward_ad.make_dual(t.clone().requires_grad_(), d)
            for t, d in zip(given, tangents, strict=True)
        ]
        (y,) = function(*duals, *statistics, training, 0.1, 1e-5)
        value = (torch.sin(y) * torch.linspace(-1, 2, y.numel()).view(y.shape)).sum()
        targets = [t for t in duals if t is not None]
        results = [y, *torch.autograd.grad(value, targets)]
        pairs = [forward_ad.unpack_dual(result) for result in results]
        found = [t.detach().clone() for pair in pairs for t in pair if t is not None]
        return [*found, *(s for s in statistics if s is not None)]


def assert_torchs_own(*given, **options):
    found, expected = (
        derivatives(function, *given, **options) for function in (batch_norm, own)
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("moving", ["all", "input", "weight", "bias", "weight, bias"])
@pytest.mark.parametrize("shape", SHAPES)
def test_results_gradients_and_all_their_tangents_are_torchs_own(
    shape, moving, training
):
    torch.manual_seed(0)
    options = {"dtype": torch.float64}
    given = [torch.randn(SHAPES[shape], **options), *torch.randn(2, 3, **options)]
    tangents = [torch.randn_like(t) for t in given]
    if moving != "all":
        names = ("input", "weight", "bias")
        pairs = zip(names, tangents, strict=True)
        tangents = [t if name in moving else None for name, t in pairs]
    assert_torchs_own(given, tangents, training, running=True)


def test_without_weights_the_scale_is_1():
    torch.manual_seed(0)
    x, dx = torch.randn(2, 6, 3, 4, 4, dtype=torch.float64)
    assert_torchs_own([x, None, None], [dx, None, None])


def test_a_weight_of_0_is_no_exception():
    torch.manual_seed(0)
    x, dx = torch.randn(2, 6, 3, 4, 4, dtype=torch.float64)
    w, b = torch.tensor([0.0, 1.0, -2.0], dtype=torch.float64), torch.zeros(3).double()
    assert_torchs_own([x, w, b], [dx, torch.ones_like(w), torch.ones_like(b)])


def test_images_with_the_channels_last_keep_their_layout():
    torch.manual_seed(0)
    x, dx = torch.randn(2, 6, 3, 4, 4)
    layout = torch.channels_last
    given = [x.contiguous(memory_format=layout), torch.ones(3), torch.zeros(3)]
    found = derivatives(batch_norm, given, [dx, None, None])
    assert found[0].is_contiguous(memory_format=layout)
    expected = derivatives(own, given, [dx, None, None])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_calls_that_it_stands_in_for_are_those_of_training():
    model = torch.nn.BatchNorm2d(3)
    seen = []

    class Seeing(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with Seeing():
        model(torch.randn(2, 3, 4, 4))
    assert set(seen) & set(INSTEAD)
