"""The meta-gradient of the initial weights θ_0, from the steps that a learner made.

Each class below collects what it needs of the steps, and returns a value and a
direction d. :func:`loss_with_gradient` makes them a loss with the gradient d. The user
scales this loss and calls ``backward()`` as with any other loss.
"""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from l2l_evograd.checks import InputError, check_loss
from l2l_evograd.replay.inner_loss import or_zeros
from l2l_evograd.replay.tensor import plain
from l2l_evograd.updates.situation import Stepped

Directed = tuple[Tensor, list[Tensor]]


def loss_with_gradient(
    value: Tensor, params: Sequence[Tensor], gradient: Sequence[Tensor]
) -> Tensor:
    """Return a scalar with this value and this gradient.

    Args:
        value: the scalar.
        params: the tensors with respect to which the scalar is differentiated.
        gradient: the derivative, one tensor of the shape of each of ``params``.
    """
    loss: Tensor = _WithGradient.apply(value.detach(), list(gradient), *params)
    return loss


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, value: Tensor, gradient: list[Tensor], *params: Tensor
    ) -> Tensor:
        ctx.save_for_backward(*(part.detach() for part in gradient))
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        found = [(cotangent * part).to(part.dtype) for part in ctx.saved_tensors]
        return (None, None, *found)


class InitialWeights(abc.ABC):
    """A method to learn the initial weights.

    Args:
        start: θ_0, the learner's first weights.

    Attributes:
        curved: whether the method differentiates through the inner steps.
        needs: the loss that :meth:`directed` takes; empty if it takes none.
    """

    curved: ClassVar[bool] = False
    needs: ClassVar[str] = ""

    def __init__(self, start: Sequence[Tensor]) -> None:
        self.start = [plain(tensor.detach()) for tensor in start]

    def note(self, before: Sequence[Tensor], loss: Tensor, stepped: Stepped) -> None:
        """Take what the method needs of one inner step.

        Args:
            before: the weights before the step.
            loss: the inner loss at these weights.
            stepped: the result of the step.
        """
        return

    @abc.abstractmethod
    def directed(self, loss: Tensor | None, weights: Sequence[Tensor]) -> Directed:
        """Return a value, and its derivative with respect to θ_0.

        Args:
            loss: the loss that :attr:`needs` names, at the last weights.
            weights: the last weights θ_K.
        """


class Reptile(InitialWeights):
    """½‖θ_K − θ_0‖² with θ_K held fixed: d = θ_0 − θ_K.

    Source: Nichol, Achiam, Schulman, "On First-Order Meta-Learning Algorithms", 2018.
    """

    def directed(self, loss: Tensor | None, weights: Sequence[Tensor]) -> Directed:
        """Return the value and d."""
        found = [
            s - plain(w.detach()) for s, w in zip(self.start, weights, strict=True)
        ]
        return 0.5 * _squares(found), found


class FirstOrderMAML(InitialWeights):
    """The query loss at θ_K, with the steps as the identity: d = ∇L(θ_K)."""

    needs = "the query loss"

    def directed(self, loss: Tensor | None, weights: Sequence[Tensor]) -> Directed:
        """Return the query loss and d.

        Cost: one backward pass.
        """
        loss = _checked(loss, self.needs)
        try:
            found = torch.autograd.grad(
                loss, weights, retain_graph=True, allow_unused=True
            )
        except RuntimeError as error:
            if "second time" not in str(error):
                raise
            raise RuntimeError(
                "the graph of the query loss was freed by an earlier backward(): call "
                "init_loss(loss) before loss.backward(), or add the two losses and "
                "call backward() once"
            ) from error
        if all(part is None for part in found):
            raise InputError(
                "expected a query loss that depends on the learner's present weights, "
                "got one that does not; compute it from learner(...) after the last "
                "adapt()"
            )
        return plain(loss.detach()), or_zeros(found, self.start)


class MAML(FirstOrderMAML):
    """The query loss at θ_K: d = (∂θ_K/∂θ_0)ᵀ ∇L(θ_K).

    Source: Finn, Abbeel, Levine, ICML 2017.
    """

    curved = True

    def __init__(self, start: Sequence[Tensor]) -> None:
        super().__init__(start)
        self._steps: list[tuple[list[Tensor], list[Tensor]]] = []

    def note(self, before: Sequence[Tensor], loss: Tensor, stepped: Stepped) -> None:
        """Keep the graph of the step."""
        self._steps.append((list(before), stepped.params))

    def directed(self, loss: Tensor | None, weights: Sequence[Tensor]) -> Directed:
        """Return the query loss and d.

        Cost: one backward pass, and one through the graph of each step.
        """
        value, found = super().directed(loss, weights)
        for before, after in reversed(self._steps):
            pulled = torch.autograd.grad(
                after, before, found, retain_graph=True, allow_unused=True
            )
            found = or_zeros(pulled, self.start)
        return value, found


class Leap(InitialWeights):
    """The length of the way ϑ_0, ϑ_1, ..., with ϑ_k = (θ_k, L(θ_k)).

    C = Σ_k ‖ϑ_k − ϑ_{k−1}‖. The end of every segment is held fixed, and the steps are
    taken as the identity:

        d = −Σ_k [ΔL_k ∇L(θ_{k−1}) + Δθ_k] / ‖ϑ_k − ϑ_{k−1}‖

    with −|ΔL_k| in place of ΔL_k, which keeps a step that raised the loss from pushing
    θ_0 towards a higher loss.

    Source: Flennerhag, Moreno, Lawrence, Damianou, "Transferring Knowledge across
    Learning Processes", ICLR 2019, and its released code.
    """

    needs = "the inner loss"

    def __init__(self, start: Sequence[Tensor]) -> None:
        super().__init__(start)
        self._sum = [torch.zeros_like(tensor) for tensor in self.start]
        self._length: Tensor | None = None
        self._last: tuple[Tensor, list[Tensor], list[Tensor]] | None = None

    def note(self, before: Sequence[Tensor], loss: Tensor, stepped: Stepped) -> None:
        """End the segment of the step before; keep loss, weights and gradient."""
        here = [plain(tensor.detach()) for tensor in before]
        self._end(plain(loss.detach()), here)
        gradients = or_zeros(stepped.gradients, here)
        self._last = plain(loss.detach()), here, gradients

    def directed(self, loss: Tensor | None, weights: Sequence[Tensor]) -> Directed:
        """Return the length and d."""
        loss = _checked(loss, self.needs)
        self._end(plain(loss.detach()), [plain(w.detach()) for w in weights])
        self._last = None
        assert self._length is not None  # a step has been made
        return self._length, [part.clone() for part in self._sum]

    def _end(self, loss: Tensor, weights: Sequence[Tensor]) -> None:
        if self._last is None:
            return
        start_loss, start, gradients = self._last
        change = (loss - start_loss).flatten()[0]
        moves = [w - s for w, s in zip(weights, start, strict=True)]
        length = (_squares(moves) + change**2).sqrt()
        scale = 1 / length.clamp_min(torch.finfo(length.dtype).tiny)
        for total, move, slope in zip(self._sum, moves, gradients, strict=True):
            total -= scale * (move - change.abs() * slope)
        self._length = length if self._length is None else self._length + length


METHODS: dict[str, type[InitialWeights]] = {
    "maml": MAML,
    "fomaml": FirstOrderMAML,
    "reptile": Reptile,
    "leap": Leap,
}


def _checked(loss: Tensor | None, needs: str) -> Tensor:
    if loss is None:
        raise InputError(
            f"expected {needs} at the learner's last weights, got nothing; call "
            f"init_loss(loss) with it"
        )
    return check_loss(loss, needs)


def _squares(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([tensor.square().sum() for tensor in tensors]).sum()
