import pytest
import torch
from torch.nn.functional import mse_loss

from benchmarks.cost_configs import family_of
from benchmarks.meta_batches import OMNIGLOT, SINE, MetaBatchConfig, meta_batch
from benchmarks.overhead_tasks import Network

CPU, CONTIGUOUS = torch.device("cpu"), torch.contiguous_format
CONFIGS = {
    "mlp": MetaBatchConfig(Network("MLP", "mlp", 4, 3, lr=0.01), 2, tasks=3),
    "omniglot": MetaBatchConfig(Network("CNN", "omniglot", 2, 3, lr=0.5), 1, tasks=3),
}


def run(config: MetaBatchConfig, method: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient of one meta-step, and how far it moved the weights."""
    family = family_of(config)
    batch = family.build(config, CPU, CONTIGUOUS)
    before = torch.cat([w.detach().flatten() for w in batch.weights])
    found = torch.cat([g.flatten() for g in family.methods[method](batch)])
    after = torch.cat([w.detach().flatten() for w in batch.weights])
    return found, after - before


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("order", ["first", "second"])
def test_methods_of_one_order_give_the_same_gradient(kind, order):
    expected, _ = run(CONFIGS[kind], f"learn2learn, {order} order")
    methods = [f"loop, {order} order", f"all at once, {order} order"]
    if order == "second":
        methods += ["second order (higher)", "TorchOpt, unrolled"]
        methods += ["8 at once, second order"]
    for method in methods:
        found, moved = run(CONFIGS[kind], method)
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-11, msg=method)
        assert float(moved.norm()) > 0, method


@pytest.mark.usefixtures("float64")
def test_orders_differ_and_the_plain_step_is_neither():
    found = {
        method: run(CONFIGS["mlp"], method)[0]
        for method in ("plain", "loop, first order", "loop, second order")
    }
    one, other, third = found.values()
    assert not torch.allclose(one, other, rtol=1e-3)
    assert not torch.allclose(other, third, rtol=1e-3)


@pytest.mark.usefixtures("float64")
def test_the_plain_step_is_on_all_query_data():
    batch = meta_batch(CONFIGS["mlp"], CPU, CONTIGUOUS)
    outputs = batch.model(batch.query.inputs)
    loss = mse_loss(outputs, batch.query.targets)
    expected = torch.autograd.grad(loss, batch.weights)
    found, _ = run(CONFIGS["mlp"], "plain")
    torch.testing.assert_close(found, torch.cat([g.flatten() for g in expected]))


def test_tasks_differ_and_are_of_the_sizes_asked_for():
    sine = meta_batch(SINE, CPU, CONTIGUOUS)
    assert sine.support.inputs.shape == sine.query.targets.shape == (32, 10, 1)
    assert len({float(y.abs().max()) for y in sine.support.targets}) == 32
    assert (sine.steps, SINE.network.hidden) == (5, 40)
    omniglot = meta_batch(OMNIGLOT, CPU, CONTIGUOUS)
    assert omniglot.support.inputs.shape == (32, 5, 1, 28, 28)
    assert omniglot.query.targets.tolist() == [[0, 1, 2, 3, 4]] * 32
    assert (omniglot.steps, omniglot.lr, OMNIGLOT.network.hidden) == (1, 0.5, 64)
