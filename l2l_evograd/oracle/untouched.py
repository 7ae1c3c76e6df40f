"""The check that a measured function has left the user's problem as it was."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from l2l_evograd.checks import InputError


class Untouched:
    """The values, gradients and flags of a model and of λ, at one time.

    Args:
        model: the module.
        others: further tensors, such as λ from outside the module.

    Cost: memory of the tensors' size, and one comparison for each block watched.
    """

    def __init__(self, model: nn.Module, others: Sequence[Tensor] = ()) -> None:
        self._model = model
        own = [*model.named_parameters(), *model.named_buffers()]
        known = {id(tensor) for _, tensor in own}
        extra = [t for t in others if id(t) not in known]
        self._named = [
            *own,
            *((f"λ[{n}] from outside", t) for n, t in enumerate(extra)),
        ]
        self._values = [tensor.detach().clone() for _, tensor in self._named]
        self._grads = [t.grad for _, t in self._named]
        self._slopes = [None if g is None else g.detach().clone() for g in self._grads]
        self._wanted = [tensor.requires_grad for _, tensor in self._named]
        self._modes = [(child, child.training) for child in model.modules()]

    @contextlib.contextmanager
    def watch(self, what: str) -> Iterator[None]:
        """Restore what the body has changed, and raise an error if it did.

        Args:
            what: who runs in the body, for the message.

        Raises:
            InputError: if a parameter, a buffer, a ``.grad`` or a flag is different
                after the body. Everything is as before then.
        """
        try:
            yield
        except BaseException:
            self._restore()
            raise
        changed = self._restore()
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise InputError(
                f"expected {what} to leave the model as it was, but it changed "
                f"{changed[0]}{more}, which has been restored; work on the module that "
                f"the losses are given, or on a copy.deepcopy of the model"
            )

    def _restore(self) -> list[str]:
        """Put everything back, and return what was different."""
        changed = []
        places = [id(t) for t in (*self._model.parameters(), *self._model.buffers())]
        for (name, tensor), value, grad, slope, wanted in zip(
            self._named,
            self._values,
            self._grads,
            self._slopes,
            self._wanted,
            strict=True,
        ):
            if not _same(tensor.detach(), value):
                changed.append(name)
                with torch.no_grad():
                    tensor.copy_(value)
            moved = slope is not None and grad is not None and not _same(grad, slope)
            if tensor.grad is not grad or moved:
                changed.append(f"{name}.grad")
                tensor.grad = grad
                if moved and grad is not None and slope is not None:
                    with torch.no_grad():
                        grad.copy_(slope)
            if tensor.requires_grad != wanted:
                changed.append(f"{name}.requires_grad")
                tensor.requires_grad_(wanted)
        inside = {id(tensor) for _, tensor in self._named}
        if not inside.issuperset(places):
            changed.append("the model's list of parameters or buffers")
        for child, training in self._modes:
            if child.training != training:
                changed.append(f"the training mode of {type(child).__name__}")
                child.training = training
        return changed


def _same(left: Tensor, right: Tensor) -> bool:
    if left.shape != right.shape:
        return False
    return bool(((left == right) | ((left != left) & (right != right))).all())
