import pytest
import torch
from consoles import silent_console
from small_tasks import tiny_experiment, tiny_network
from torch import nn

from l2l_evograd.experiments.fewshot.methods import METHODS
from l2l_evograd.experiments.fewshot.module import FewShotModule
from l2l_evograd.experiments.training import train


class Killed(FewShotModule):
    stop_at = 0

    def iterate(self, iteration: int) -> float:
        if iteration == self.stop_at:
            raise RuntimeError("killed")
        return super().iterate(iteration)


def tiny_module(method: str, out, total: int = 5) -> FewShotModule:
    experiment = tiny_experiment(out, methods=(method,))
    return experiment._module(METHODS[method], tiny_network(), 0, total)


def fit(module: FewShotModule, out) -> FewShotModule:
    train(
        module,
        name="run",
        out=out,
        device=torch.device("cpu"),
        console=silent_console(),
    )
    return module


def state(module: nn.Module) -> torch.Tensor:
    values = [value.flatten().double() for value in module.state_dict().values()]
    return torch.cat(values)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "aruba++"])
def test_a_run_that_was_killed_goes_on_bit_for_bit(method, tmp_path):
    whole = fit(tiny_module(method, tmp_path), tmp_path / "whole")
    killed = tiny_module(method, tmp_path)
    killed.__class__ = type("KilledHere", (Killed,), {"stop_at": 3})
    with pytest.raises(RuntimeError, match="killed"):
        fit(killed, tmp_path / "parts")
    rest = fit(tiny_module(method, tmp_path), tmp_path / "parts")
    assert rest.losses == whole.losses and len(rest.losses) == 5
    assert rest.curve == whole.curve
    assert torch.equal(state(rest), state(whole))


def test_a_checkpoint_at_the_end_is_the_whole_training(tmp_path):
    whole = fit(tiny_module("aruba", tmp_path), tmp_path)
    again = fit(tiny_module("aruba++", tmp_path), tmp_path)  # the same training
    assert torch.equal(state(again), state(whole))
    assert again.process_seconds == whole.process_seconds
    assert again.planned == [5.0]


def test_the_curve_has_its_points_and_changes_nothing(tmp_path):
    module = fit(tiny_module("fomaml", tmp_path), tmp_path / "with")
    assert [point["iteration"] for point in module.curve] == [0, 1, 2, 3, 4, 5]
    assert all(0 <= point["accuracy"] <= 1 for point in module.curve)
    assert tiny_module("fomaml", tmp_path, total=11).block == 2
    blind = tiny_module("fomaml", tmp_path)
    blind._validation = ()
    assert fit(blind, tmp_path / "without").losses == module.losses
    assert blind.curve == []


def test_rates_fall_to_zero(tmp_path):
    module = tiny_module("reptile", tmp_path, total=4)
    (optimizer,) = [module.configure_optimizers()]
    rates = []
    for iteration in range(4):
        module.meta_step(iteration, optimizer)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [1.0, 0.75, 0.5, 0.25]


def test_all_methods_see_tasks_of_the_same_classes(tmp_path):
    maml, reptile = (tiny_module(m, tmp_path) for m in ("maml", "reptile"))
    for number in (0, 3):
        own, other = maml._lessons(number), reptile._lessons(number)
        assert torch.equal(own.inner[0][0], own.inner[1][0])
        assert not torch.equal(other.inner[0][0], other.inner[1][0])
        # A task of Reptile has the support image of each class, if it was drawn.
        known = {tuple(image.flatten().tolist()) for image in own.inner[0][0]}
        known |= {tuple(image.flatten().tolist()) for image in own.query[0]}
        drawn = torch.cat([x for x, _ in other.inner])
        assert known & {tuple(image.flatten().tolist()) for image in drawn}
