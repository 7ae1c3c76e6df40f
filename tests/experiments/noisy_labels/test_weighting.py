import pytest
import torch
from torch import nn

from l2l_evograd import bilevel_step
from l2l_evograd.experiments.noisy_labels.weighting import MetaWeightNet, weighted_loss

pytestmark = pytest.mark.usefixtures("float64")


def test_the_weight_net_is_what_its_formula_says():
    torch.manual_seed(0)
    net, losses = MetaWeightNet(7), torch.rand(5)
    (w1, b1), (w2, b2) = (list(part.parameters()) for part in (net.first, net.second))
    hidden = torch.relu(losses[:, None] * w1[:, 0] + b1)
    assert torch.allclose(net(losses), torch.sigmoid(hidden @ w2[0] + b2))
    assert net(losses).shape == (5,)


def test_it_has_one_hidden_layer_of_a_hundred_units():
    assert sum(p.numel() for p in MetaWeightNet().parameters()) == 301


def test_no_gradient_passes_to_the_losses():
    losses = torch.rand(5, requires_grad=True)
    weights = MetaWeightNet()(losses)
    assert weights.requires_grad
    (slope,) = torch.autograd.grad(weights.sum(), losses, allow_unused=True)
    assert slope is None


def test_half_precision_does_not_reach_the_weights():
    torch.manual_seed(0)
    net, losses = MetaWeightNet(), torch.rand(50)
    with torch.autocast("cpu", torch.bfloat16):
        inside = net(losses)
    assert torch.equal(inside, net(losses))
    assert net(losses.bfloat16()).dtype == torch.float64


def test_the_loss_is_the_weighted_mean():
    losses, weights = torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0.5, 0.0, 1.5])
    assert float(weighted_loss(losses, weights)) == pytest.approx(4.0)


def test_equal_weights_give_the_mean():
    losses = torch.rand(9)
    assert torch.allclose(weighted_loss(losses, torch.full((9,), 0.3)), losses.mean())


def test_weights_that_add_up_to_nothing_give_no_number():
    assert weighted_loss(torch.ones(3), torch.zeros(3)).isnan()


def test_a_step_calls_the_weighted_loss_once():
    torch.manual_seed(0)
    model, net, calls = nn.Linear(4, 3), MetaWeightNet(5), []
    x, y = torch.randn(9, 4), torch.arange(9) % 3

    def inner(view):
        calls.append(1)
        losses = nn.functional.cross_entropy(view(x), y, reduction="none")
        return weighted_loss(losses, net(losses))

    bilevel_step(
        model,
        inner,
        lambda view: nn.functional.cross_entropy(view(x), y),
        torch.optim.SGD(model.parameters(), lr=0.1),
        torch.optim.SGD(net.parameters(), lr=0.1),
    )
    assert len(calls) == 1


@pytest.mark.parametrize(
    "shapes", [((), ()), ((3,), (2,)), ((3, 1), (3, 1)), ((0,),) * 2]
)
def test_losses_that_are_none_of_samples_are_refused(shapes):
    losses, weights = (torch.ones(shape) for shape in shapes)
    with pytest.raises(ValueError, match="one loss and one weight for each sample"):
        weighted_loss(losses, weights)


def test_a_net_without_hidden_units_is_refused():
    with pytest.raises(ValueError, match="at least one hidden unit, got 0"):
        MetaWeightNet(0)
