"""``Exact``: automatic differentiation through one inner step, the reference."""

import functools
import logging
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from l2l_evograd.checks import check_choice
from l2l_evograd.estimators.base import Estimator, Question, dot
from l2l_evograd.estimators.batch_norm import INSTEAD
from l2l_evograd.estimators.scaling import in_turn, lengths, normalised, times
from l2l_evograd.replay.inner_loss import InnerLoss, check_same, digest, gradient
from l2l_evograd.replay.wrong_derivatives import INSTEAD as RIGHT_TWICE

#: Bytes on the graph of an inner loss from which ``mode="auto"`` goes forward. Below,
#: recording the loss takes longer than the second-order graph.
FORWARD_FROM = 2**20


@dataclass(frozen=True)
class Exact(Estimator):
    """Automatic differentiation through one inner step, the reference.

    ∂D/∂λ with D = v·∇_θ ℓ(θ, λ), in one of two ways of equal result.

    Forward over reverse: the weights become dual numbers (θ, v). An ordinary forward
    pass and an ordinary backward pass to λ then compute ∂ℓ/∂λ and, as its tangent,
    ∂D/∂λ. There is no second-order graph. If λ acts behind the network, as sample
    weights do, the backward pass does not go through the network.

    Double backward: ∂_λ (v·∇_θ ℓ(θ, λ)), the derivative of a first backward pass.

    Args:
        mode: ``"auto"`` (default): forward over reverse where only λ is wanted and the
            graph of the inner loss holds at least 1 MiB, double backward elsewhere.
            ``"forward"``: forward over reverse, also for the initial weights.
            ``"reverse"``: double backward. All modes use double backward where an
            operation has no forward derivative, where the loss cannot be computed
            again, and for derivatives of the hypergradient (``create_graph=True``).
            The first time that an operation has no forward derivative, a message at
            debug level says so.

    Raises:
        ValueError: if ``mode`` is unknown.

    Cost:
        Forward over reverse: one forward pass with dual weights (about 3 forward
        passes), and one backward pass to λ with duals. The memory is about twice that
        of a backward pass to λ. Double backward: if the step kept its graph, one
        backward pass through that graph. If the step is computed again
        (``memory="recompute"``): one forward pass, one backward pass with graph, and
        one backward pass through that graph. The memory is that of one step, whatever
        the number of steps. Attention runs on the math kernel and recurrent layers run
        without cuDNN, because only these kernels can be differentiated twice.
    """

    exact: ClassVar[bool] = True

    mode: str = "auto"

    def __post_init__(self) -> None:
        """Check the arguments."""
        check_choice(self.mode, ("auto", "forward", "reverse"), "mode")

    def goes_forward(
        self, weights_too: bool, size: int | None = None, keep: bool = False
    ) -> bool:
        """Say whether to go forward over reverse.

        Args:
            weights_too: whether the derivative with respect to θ is wanted as well.
            size: bytes on the graph of the inner loss; None if not known yet.
            keep: whether the graph of the step is kept unless ``mode`` insists.
        """
        if self.mode == "auto":
            return not (weights_too or keep) and (size is None or size >= FORWARD_FROM)
        return self.mode == "forward"

    def mixed(self, question: Question) -> list[Tensor]:
        """Return ∂D/∂λ by computing the inner loss again."""
        return self.mixed_with_weights(
            question.loss, question.params, question.direction, question.wanted
        )[1]

    def mixed_with_weights(
        self,
        loss: InnerLoss,
        params: Sequence[Tensor],
        direction: Sequence[Tensor],
        wanted: Sequence[int],
        params_too: bool = False,
        slopes_before: Tensor | None = None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return ∂D/∂θ (or an empty list) and ∂D/∂λ, by forward mode if possible.

        The arguments are those of :func:`exact_mixed`. Forward mode does not compute
        ∇_θ ℓ unless ∂D/∂θ is wanted, and compares nothing with ``slopes_before``.
        """
        forward = self.goes_forward(params_too) and not torch.is_grad_enabled()
        if forward and not lacks_forward(loss):
            try:
                return forward_mixed(loss, params, direction, wanted, params_too)
            except NoForwardDerivative as error:
                if not isinstance(error, Nested):
                    _LACKING.add(loss.program.functions)
                _say_once(str(error))
        return exact_mixed(loss, params, direction, wanted, params_too, slopes_before)


class NoForwardDerivative(RuntimeError):
    """An operation of the inner loss, or of its backward pass, has no tangent."""


class Nested(NoForwardDerivative):
    """Another computation by forward mode is under way; torch allows one at a time."""


# Operations for which torch 2.15 computes a wrong tangent of the backward pass without
# an error, mostly because a saved result such as a factorization has no tangent. The
# list is from a comparison of all of torch's sample inputs with double backward, and
# leaves out linear algebra as a whole. The gradients of writes to given places are not
# defined if a place is given twice.
_WRONG = re.compile(
    r"aten::(_?linalg_(?!vector_norm|cross)|cholesky|triangular_solve|lu_|_lu_|ormqr"
    r"|cumprod|scatter(?!_add)|index_put|index_copy|index_reduce|as_strided_scatter"
    r"|max_unpool)"
)

# What stands in for operations whose derivatives are slow or wrong.
_FORWARD = {**INSTEAD, **RIGHT_TWICE}

# The sets of operations of losses that could not be differentiated by forward mode.
_LACKING: set[frozenset[str]] = set()


def lacks_forward(loss: InnerLoss) -> bool:
    """Say whether forward mode is known to fail for one of the loss's operations."""
    names = loss.program.functions
    return names in _LACKING or any(map(_is_wrong, names))


@functools.cache
def _is_wrong(name: str) -> bool:
    if not _WRONG.match(name):
        return False
    _say_once(f"the forward derivative of {name} is not reliable")
    return True


@functools.cache
def load_formulas() -> None:
    """Let torch load its formulas of tangents, which warns of torch's own code."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", FutureWarning)
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))


@functools.cache
def _say_once(reason: str) -> None:
    logging.getLogger(__name__).debug(
        "double backward instead of forward over reverse: %s", reason
    )


def forward_mixed(
    loss: InnerLoss,
    params: Sequence[Tensor],
    direction: Sequence[Tensor],
    wanted: Sequence[int],
    params_too: bool = False,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return ∂D/∂θ (or an empty list) and ∂D/∂λ by forward over reverse.

    Args:
        loss: ℓ.
        params: θ.
        direction: v.
        wanted: positions of λ among the inputs of ℓ.
        params_too: whether ∂D/∂θ is wanted.

    Raises:
        NoForwardDerivative: if an operation lacks a derivative.
        Nested: inside another computation by forward mode, such as ``torch.func.jvp``.
    """
    direction, factors = _of_safe_length(loss, direction)
    leaves = [loss.leaves[position] for position in wanted]
    weights = [_unexpanded(p).requires_grad_(params_too) for p in params]
    try:
        load_formulas()
        with forward_ad.dual_level():
            with torch.enable_grad():
                duals = [
                    forward_ad.make_dual(w, v.detach())
                    for w, v in zip(weights, direction, strict=True)
                ]
                value = loss(duals, instead=_FORWARD)
            targets = [*(weights if params_too else []), *leaves]
            found = [_tangent(g, factors) for g in gradient(value, targets)]
    except NotImplementedError as error:
        raise NoForwardDerivative(str(error).partition(". ")[0]) from error
    except RuntimeError as error:
        # The tangent of the backward pass of mse_loss writes to a symbol of zeros.
        lacking = ("forward mode AD", "ZeroTensors are immutable")
        if not any(words in str(error).replace("-", " ") for words in lacking):
            raise
        kind = Nested if "Nested" in str(error) else NoForwardDerivative
        raise kind(str(error).partition(". ")[0]) from error
    split = len(weights) if params_too else 0
    return found[:split], found[split:]


def _of_safe_length(
    loss: InnerLoss, direction: Sequence[Tensor]
) -> tuple[Sequence[Tensor], tuple[Tensor, ...]]:
    """Return v, or a multiple of it and the factors by which the result is multiplied.

    In half precision the tangents of a short v would lose their digits, and those of a
    long one would overflow.
    """
    casts = "aten::_to_copy" in loss.program.functions
    if not casts and all(v.dtype.itemsize > 2 for v in direction):
        return direction, ()
    direction, power = normalised(direction)
    length = lengths(direction)
    unit = torch.where(length == 0, 0.0, 1 / length)
    return times(direction, unit), (length, power)


def _unexpanded(param: Tensor) -> Tensor:
    """Return the tensor without a graph; a dual number needs memory of its own."""
    repeats = any(
        step == 0 and size > 1
        for step, size in zip(param.stride(), param.shape, strict=True)
    )
    return param.detach().clone() if repeats else param.detach()


def _tangent(grad: Tensor, factors: Sequence[Tensor]) -> Tensor:
    tangent = forward_ad.unpack_dual(grad).tangent
    if tangent is None:
        return torch.zeros_like(grad)
    if not factors:
        return tangent.clone()  # no part of a larger tensor, and no symbol of zeros
    return in_turn(tangent, *factors)


def exact_mixed(
    loss: InnerLoss,
    params: Sequence[Tensor],
    direction: Sequence[Tensor],
    wanted: Sequence[int],
    params_too: bool = False,
    slopes_before: Tensor | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return ∂D/∂θ (or an empty list) and ∂D/∂λ by double backward.

    Args:
        loss: ℓ.
        params: θ. If gradients are enabled, the result is on the autograd graph of θ,
            of v and of the inputs of ℓ.
        direction: v.
        wanted: positions of λ among the inputs of ℓ.
        params_too: whether ∂D/∂θ is wanted.
        slopes_before: digest of the ∇_θ ℓ that the inner step used. It is compared with
            the digest of the ∇_θ ℓ that is computed here.

    Raises:
        RuntimeError: if the loss uses a function that cannot be differentiated twice,
            or if the repeated loss has a different gradient.
    """
    again = torch.is_grad_enabled()  # whether the result must be differentiable
    weights = _cut(params, again)
    if again:
        loss = loss.at(_cut(loss.inputs, again))
    slopes = loss.slopes(weights, instead=RIGHT_TWICE)
    if slopes_before is not None:
        check_same("its gradient", [slopes_before], [digest(slopes)])
    direction, factors = _of_safe_length(loss, direction)
    with torch.enable_grad():
        derivative = dot(direction, slopes)
    leaves = [loss.leaves[position] for position in wanted]
    targets = [*(weights if params_too else []), *leaves]
    found = gradient(derivative, targets, create_graph=again)
    if factors:
        found = [in_turn(grad, *factors) for grad in found]
    split = len(weights) if params_too else 0
    return found[:split], found[split:]


def _cut(tensors: Sequence[Tensor], on_graph: bool) -> list[Tensor]:
    """Return tensors of equal value at which partial derivatives stop."""
    if on_graph:
        return [t.view_as(t) if t.requires_grad else t for t in tensors]
    return [t.detach().requires_grad_() for t in tensors]
