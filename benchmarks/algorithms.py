"""One meta-step on one few-shot task, by each algorithm behind learn2learn's interface.

The algorithms learn different things, so their gradients are not compared. WarpGrad's
network is larger: a warp layer follows each of its four blocks.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.optim import Adam

from benchmarks import maml_tasks
from benchmarks.maml_tasks import MamlConfig, MamlMethod, MamlTask, task_loss
from benchmarks.methods import PLAIN_STEP
from l2l_evograd import ARUBA, WarpGrad, add_warp_layers, warp_layers


@dataclass(frozen=True)
class AlgorithmsConfig(MamlConfig):
    """A task of miniImageNet's size, for which all algorithms are compared."""

    steps: int = 5
    shots: int = 1
    hidden: int = 32

    @property
    def name(self) -> str:
        """Name for tables."""
        return f"Algorithms, CNN4, {self.steps} steps"


def warped(task: MamlTask) -> None:
    """Put warp layers into the network of a task, if it has none yet."""
    if not len(warp_layers(task.model)):
        add_warp_layers(task.model)
        task.optimizer = Adam(task.model.parameters(), lr=1e-3)


def warpgrad(first_order: bool = False, init: str | None = None) -> MamlMethod:
    """Return a method that makes a meta-step of online WarpGrad.

    Args:
        first_order: as for :class:`WarpGrad`.
        init: likewise.
    """

    def step(task: MamlTask) -> list[Tensor]:
        warped(task)
        meta = WarpGrad(task.model, task.lr, first_order=first_order, init=init)
        task.optimizer.zero_grad()
        learner = meta.clone()
        for done in range(1, task.steps + 1):
            learner.adapt(task_loss(learner, task.support))
            query = task_loss(learner, task.query)
            loss = query / task.steps
            if init is not None and done == task.steps:
                loss = loss + learner.init_loss(query)
            loss.backward()
        task.optimizer.step()
        return []

    return step


def maml_of_warped(task: MamlTask) -> list[Tensor]:
    """Make a meta-step of second-order MAML that adapts the warp layers as well."""
    warped(task)
    maml_tasks.METHODS["learn2learn, second order"](task)
    return []


def aruba(task: MamlTask) -> list[Tensor]:
    """Make a meta-step of Reptile with ARUBA's rates; it uses no query images."""
    meta = ARUBA(task.model, task.lr)
    task.optimizer.zero_grad()
    learner = meta.clone()
    for _ in range(task.steps):
        learner.adapt(task_loss(learner, task.support))
    meta.collect(learner)
    learner.init_loss().backward()
    task.optimizer.step()
    return []


_SAME = (
    *("learn2learn, second order", "learn2learn, first order"),
    *("exact", "first order"),
)

METHODS: dict[str, MamlMethod] = {
    PLAIN_STEP: maml_tasks.METHODS[PLAIN_STEP],
    **{name: maml_tasks.METHODS[name] for name in _SAME},
    "MAML of the warped network": maml_of_warped,
    "WarpGrad": warpgrad(),
    "WarpGrad, init by MAML": warpgrad(init="maml"),
    "WarpGrad, init by first-order MAML": warpgrad(init="fomaml"),
    "WarpGrad, first order": warpgrad(first_order=True),
    "WarpGrad, both first order": warpgrad(first_order=True, init="fomaml"),
    "ARUBA with Reptile": aruba,
}
