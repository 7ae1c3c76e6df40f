"""What every function that differentiates a training run begins with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from l2l_evograd.bilevel.problem import Loss
from l2l_evograd.checks import InputError
from l2l_evograd.finite import check_range
from l2l_evograd.hyperparameters import Hyperparameters
from l2l_evograd.unroll.groups import GroupNames, Groups
from l2l_evograd.unroll.initial import Init, Initial
from l2l_evograd.unroll.losses import Losses
from l2l_evograd.unroll.schedule import Windows
from l2l_evograd.unroll.training_run import TrainingRun


@dataclass(frozen=True)
class Prepared:
    """A run with its initial weights and the values of its optimizer.

    Attributes:
        run: the losses.
        initial: the initial weights.
        schedule: the optimizer's quantities by name.
        dampening: whether a gradient enters the velocity with the weight 1 − β.
    """

    run: TrainingRun
    initial: Initial
    schedule: dict[str, Windows]
    dampening: bool

    @property
    def learned(self) -> dict[str, Windows]:
        """The quantities that are differentiated."""
        return {name: w for name, w in self.schedule.items() if w.learned}

    def shares(self, beta: Sequence[float]) -> list[float]:
        """Return the weight of a gradient in the velocity, for each tensor."""
        return [1 - b if self.dampening else 1.0 for b in beta]


def prepare(
    inner_loss: Loss | Losses,
    outer_loss: Loss,
    params: Mapping[str, Tensor] | nn.Module,
    hyperparameters: Hyperparameters | Mapping[str, Tensor] | None,
    schedule: Mapping[str, float | Tensor],
    steps: int,
    init: Init | None,
    groups: GroupNames | None,
    allow_unused: bool,
    clip: float | None = None,
    dampening: bool = False,
    remember: bool = False,
    differentiated: bool = True,
) -> Prepared:
    """Check the arguments of a run, as :func:`~.unrolled_sgd` describes them.

    Args:
        inner_loss: ℓ, or one for each step.
        outer_loss: L.
        params: θ.
        hyperparameters: λ.
        schedule: the optimizer's quantities by name; a momentum is at most 1.
        steps: T.
        init: the scale of the initial weights.
        groups: the names of the weights in each group.
        allow_unused: accept λ and weights without use.
        clip: as for :class:`TrainingRun`.
        dampening: whether a gradient enters the velocity with the weight 1 − β.
        remember: as for :class:`TrainingRun`.
        differentiated: whether there must be something to differentiate.

    Raises:
        TypeError, ValueError: if one of them cannot be used, or if there is nothing to
            differentiate with respect to.
    """
    if not isinstance(dampening, bool):
        raise TypeError(
            f"expected dampening to be True or False, got {dampening!r}; with True a "
            f"gradient enters the velocity with the weight 1 - momentum"
        )
    run = TrainingRun(
        inner_loss,
        outer_loss,
        params,
        hyperparameters,
        steps,
        allow_unused,
        clip,
        remember,
    )
    division = Groups(run.names, groups)
    windows = {
        name: Windows(name, given, steps, division, *_MOST.get(name, ()))
        for name, given in schedule.items()
    }
    for name, window in windows.items():
        check_range(max(window.values()), run.given, name)
    initial = Initial(init, run.given, division)
    apart = initial.width > 1 or any(w.grouped for w in windows.values())
    if groups is not None and not apart:
        raise InputError(
            f"groups were given, but nothing has a value for each of them: expected "
            f"{' or '.join(schedule)} of shape (N, {division.count}), or a scale of "
            f"shape ({division.count},); leave groups out otherwise"
        )
    prepared = Prepared(run, initial, windows, dampening)
    wanted = run.hyperparameters or prepared.learned or initial.learned
    if differentiated and not wanted:
        raise InputError(
            f"nothing to differentiate with respect to: give {' or '.join(schedule)} "
            f"as a tensor, hyperparameters, or init"
        )
    return prepared


_MOST = {"momentum": (1.0,)}
