import copy

import pytest
import pytorch_lightning as pl
import torch
from noisy import coloured, silent_console, tiny_module
from torch import nn
from torch.utils.data import TensorDataset

from l2l_evograd.experiments.noisy_labels.batches import Batches
from l2l_evograd.experiments.noisy_labels.evaluation import accuracy, sample_losses
from l2l_evograd.experiments.noisy_labels.methods import METHODS
from l2l_evograd.experiments.noisy_labels.module import NoisyLabelModule
from l2l_evograd.experiments.noisy_labels.weighting import random_weights
from l2l_evograd.experiments.training import train
from l2l_evograd.seeds import derive_seed, seeded

CPU = torch.device("cpu")


def fit(module: NoisyLabelModule, out) -> NoisyLabelModule:
    train(
        module,
        name="run",
        out=out,
        device=CPU,
        console=silent_console(),
    )
    return module


def state(module: nn.Module) -> torch.Tensor:
    return torch.cat(
        [value.flatten().double() for value in module.state_dict().values()]
    )


class Killed(NoisyLabelModule):
    stop_at = 0

    def iterate(self, iteration: int) -> float:
        if iteration == self.stop_at:
            raise RuntimeError("killed")
        return super().iterate(iteration)


WEIGHED = [("net", name) for name in METHODS]
WEIGHED += [("samples", name) for name in METHODS if METHODS[name].learned]


@pytest.mark.parametrize(("weighting", "method"), WEIGHED)
@pytest.mark.parametrize("stop_at", [1, 4])
def test_a_run_that_was_killed_goes_on_bit_for_bit(
    weighting: str, method: str, stop_at: int, tmp_path
):
    def module() -> NoisyLabelModule:
        return tiny_module(
            method=method,
            weighting=weighting,
            augment=noisy_copy,
            test=coloured_floats(),
            warm_up=2,
        )

    whole = fit(module(), tmp_path / "whole")
    killed = module()
    killed.__class__ = type("KilledHere", (Killed,), {"stop_at": stop_at})
    with pytest.raises(RuntimeError, match="killed"):
        fit(killed, tmp_path / "parts")
    rest = fit(module(), tmp_path / "parts")
    assert rest.losses == whole.losses
    assert rest.curve == whole.curve and len(rest.curve) == whole.blocks
    assert rest.hypergradients == whole.hypergradients
    assert str(rest.given_weights) == str(whole.given_weights)  # some are NaN
    assert torch.equal(state(rest), state(whole))


def noisy_copy(inputs: torch.Tensor) -> torch.Tensor:
    return inputs + 0.1 * torch.randn_like(inputs)


def coloured_floats() -> TensorDataset:
    images = coloured(5, 1)
    return TensorDataset(images.images / 255, images.labels)


def test_every_method_sees_the_same_batches_and_starts_at_the_same_weights():
    first, second = tiny_module(method="frozen"), tiny_module(method="guided")
    assert torch.equal(state(first), state(second))
    for iteration in (0, 5, 11):
        own, other = (m._batches.train.batch(iteration) for m in (first, second))
        assert torch.equal(own.inputs, other.inputs)


def test_frozen_weights_stay_and_learned_ones_move(tmp_path):
    before = state(tiny_module().weight_net)
    frozen = fit(tiny_module(method="frozen"), tmp_path / "frozen")
    learned = fit(tiny_module(method="guided"), tmp_path / "learned")
    assert torch.equal(state(frozen.weight_net), before)
    assert not torch.equal(state(learned.weight_net), before)


def test_without_weights_a_warm_up_is_the_baseline(tmp_path):
    baseline = fit(tiny_module(method="baseline"), tmp_path / "baseline")
    for weighting, method in WEIGHED:
        module = tiny_module(method=method, weighting=weighting, warm_up=7)
        warm = fit(module, tmp_path / f"{weighting}-{method}")
        assert warm.losses == baseline.losses, (weighting, method)
        assert warm.hypergradients == []
        assert torch.equal(state(warm.model), state(baseline.model))


def test_weights_of_samples_are_those_of_the_clean_batch(tmp_path):
    module = tiny_module(method="exact", weighting="samples", iterations=1)
    start, before = copy.deepcopy(module.model), state(module.weight_net)
    fit(module, tmp_path)
    chosen = module._batches.train.indices(0)
    given = torch.tensor(module.given_weights)
    assert given.isnan().sum() == len(given) - 10
    assert float(given[chosen].mean()) == pytest.approx(1.0, abs=1e-5)
    # The same by hand, with the dropout masks of the training.
    train, clean = (
        part.batch(0) for part in (module._batches.train, module._batches.meta)
    )
    with seeded(derive_seed(0, "forward", 0)):
        losses = nn.functional.cross_entropy(
            start(train.inputs), train.labels, reduction="none"
        )
        outer = nn.functional.cross_entropy(start(clean.inputs), clean.labels)
    direction = torch.autograd.grad(outer, list(start.parameters()))
    useful = torch.stack([along(loss, start, direction) for loss in losses]).clamp_min(
        0
    )
    assert given[chosen] == pytest.approx(10 * useful / useful.sum(), abs=1e-4)
    assert torch.equal(state(module.weight_net), before)  # there is no net to learn


def along(loss, model, direction):
    grads = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    return sum((g * d).sum() for g, d in zip(grads, direction, strict=True))


def test_random_weights_differ_from_batch_to_batch_and_not_from_run_to_run(tmp_path):
    one, two = (
        fit(tiny_module(method="random"), tmp_path / name) for name in ("one", "two")
    )
    baseline = fit(tiny_module(method="baseline"), tmp_path / "baseline")
    assert one.losses == two.losses != baseline.losses
    with seeded(0):
        first, second = (random_weights(1000, CPU) for _ in range(2))
    assert not torch.equal(first, second)
    # Half of them are 0; the mean of the rectified normal is 1/sqrt(2 pi).
    assert abs(float((first == 0).double().mean()) - 0.5) < 4 * 0.5 / 1000**0.5
    assert abs(float(first.mean()) - 0.3989) < 4 * 0.584 / 1000**0.5


def test_evaluation_leaves_every_layer_in_its_mode():
    module = tiny_module()
    module.model[1].eval()  # a layer that its owner has frozen
    before = [part.training for part in module.model.modules()]
    statistics = state(module.model)
    accuracy(module.model, coloured_floats())
    assert [part.training for part in module.model.modules()] == before
    assert torch.equal(state(module.model), statistics)


def test_it_learns_under_a_trainer_of_ones_own(tmp_path):
    module = tiny_module(iterations=None, epochs=12, test=coloured_floats(), lr=0.05)
    trainer = pl.Trainer(
        max_epochs=module.blocks,
        reload_dataloaders_every_n_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        accelerator="cpu",
    )
    with pytest.warns() as _:  # Lightning asks torch in a way that is to go
        trainer.fit(module)
    assert module.done == module.total == 48
    assert module.curve[-1]["accuracy"] > 0.8


def test_half_precision_stays_close_and_leaves_the_weights_whole(tmp_path):
    half = fit(tiny_module(precision="bf16"), tmp_path / "half")
    whole = fit(tiny_module(), tmp_path / "whole")
    assert all(p.dtype == torch.float32 for p in half.parameters())
    assert half.losses != whole.losses
    assert half.losses == pytest.approx(whole.losses, rel=0.05)
    assert half.hypergradients[0] == pytest.approx(whole.hypergradients[0], rel=0.3)


def test_a_finite_difference_is_not_lost_in_half_precision():
    steps = [tiny_module(precision=p).method.estimator.h for p in ("32", "bf16")]
    assert steps == [0.01, 0.1]
    method = METHODS["exact"]
    kept = tiny_module(method="exact", precision="bf16").method
    assert kept == method and kept.estimator is method.estimator


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "16-mixed"}, "does not set a precision"),
        ({"precision": "bf16-mixed"}, "does not set a precision"),
    ],
)
def test_a_trainer_that_changes_the_mathematics_is_refused(options, message: str):
    module = tiny_module()
    module._trainer = type("Trainer", (), {"world_size": 1, **options})()
    with pytest.raises(ValueError, match=message):
        module.on_fit_start()


def test_batches_are_passes_in_an_order_of_their_own():
    samples = TensorDataset(torch.arange(25.0), torch.arange(25))
    batches = Batches(samples, 10, 0, "train")
    assert len(batches) == 2
    first = [i for number in (0, 1) for i in batches.indices(number)]
    second = [i for number in (2, 3) for i in batches.indices(number)]
    assert len(set(first)) == 20 and len(set(second)) == 20
    assert first != second
    batches.indices(9)
    assert batches.indices(1) == first[10:]  # whatever was asked for in between
    assert Batches(samples, 10, 0, "meta").indices(0) != first[:10]
    assert len(Batches(samples, 100, 0, "train").indices(3)) == 25


def test_accuracy_and_losses_are_those_of_the_scores():
    samples = TensorDataset(torch.eye(3).repeat(400, 1), torch.tensor([0, 1, 1] * 400))
    model = nn.Linear(3, 3, bias=False)
    nn.init.eye_(model.weight)
    assert accuracy(model, samples) == pytest.approx(2 / 3)
    expected = nn.functional.cross_entropy(
        torch.eye(3), torch.tensor([0, 1, 1]), reduction="none"
    )
    assert torch.allclose(sample_losses(model, samples), expected.detach().repeat(400))


def test_all_sample_weights_zero_is_an_error_and_not_a_nan(tmp_path):
    module = tiny_module(method="guided")
    nn.init.constant_(module.weight_net.second.bias, -1e4)
    with pytest.raises(ValueError, match="inner loss to be finite, got nan"):
        fit(module, tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.arange(10), "a label 9; number the classes from 0"),
        (torch.arange(10) - 1, "labels from 0 on, got -1"),
        (torch.zeros(10, 2), "one class number for each sample"),
    ],
)
def test_labels_out_of_range_are_refused(labels, message: str, tmp_path):
    samples = TensorDataset(torch.randn(10, 3), labels)
    module = NoisyLabelModule(nn.Linear(3, 4), samples, samples, iterations=2)
    with pytest.raises(ValueError, match=message):
        fit(module, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weighting": "hope"}, "weighting to be one of 'samples', 'net'"),
        ({"weighting": "samples", "method": "frozen"}, "'samples' has no net"),
        ({"warm_up": -1}, "warm_up to be a whole number of at least 0"),
        ({"method": "magic"}, "expected method to be one of 'baseline'"),
        ({"precision": "16"}, "expected precision to be one of '32', 'bf16'"),
        ({"batch_size": 0}, "at least 1"),
        ({"iterations": 0}, "at least 1"),
        ({"epochs": 0}, "at least 1"),
        ({"lr": 0.0}, "lr to be positive"),
        ({"meta_lr": -1.0}, "meta_lr to be positive"),
    ],
)
def test_bad_input_is_refused(changes: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        tiny_module(**changes)


def test_no_samples_are_refused():
    nothing = TensorDataset(torch.empty(0, 3), torch.empty(0, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"samples to learn from \(train\), got none"):
        NoisyLabelModule(nn.Linear(3, 4), nothing, nothing)
