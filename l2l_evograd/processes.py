"""Processes that each hold a share of the data, and what crosses between them.

The losses of a problem are means over the processes: ℓ = Σ_p ℓ_p / N, L = Σ_p L_p / N.
Derivatives with respect to θ and the losses of candidates are averaged where something
follows from them; ∂/∂λ is linear in both and is averaged once, at the end. Every
process then takes the same step.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed

if TYPE_CHECKING:  # not every build of torch has it
    from torch.distributed import ProcessGroup


class Processes:
    """The members of a process group, at least this one.

    Args:
        group: of ``torch.distributed``; None: this process on its own.

    Attributes:
        group: as given.
        count: how many there are.
        rank: this one's number, from 0.

    Raises:
        TypeError: for something else.
    """

    def __init__(self, group: "ProcessGroup | None" = None) -> None:
        if group is not None and not _is_group(group):
            raise TypeError(
                f"expected process_group to be a torch.distributed.ProcessGroup, got "
                f"{type(group).__name__}; use torch.distributed.group.WORLD for all"
            )
        self.group = group
        self.count = 1 if group is None else group.size()
        self.rank = 0 if group is None else group.rank()

    def mean(self, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return the means over all processes, None where there is None.

        Cost: one message of the tensors' size for each dtype and device.
        """
        if self.group is None:
            return list(tensors)
        means: list[Tensor | None] = [None] * len(tensors)
        alike = defaultdict(list)
        for position, tensor in enumerate(tensors):
            if tensor is not None:
                alike[tensor.dtype, tensor.device].append((position, tensor))
        for members in alike.values():
            message = torch.cat([tensor.detach().flatten() for _, tensor in members])
            distributed.all_reduce(message, group=self.group)
            message /= self.count
            parts = message.split([tensor.numel() for _, tensor in members])
            for (position, tensor), part in zip(members, parts, strict=True):
                means[position] = part.view(tensor.shape)
        return means

    def means(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the means over all processes, of tensors all of which are there."""
        return [tensor for tensor in self.mean(tensors) if tensor is not None]

    def follow_first(self, tensors: Sequence[Tensor]) -> None:
        """Give ``tensors`` the values that they have in the first process."""
        if self.group is None:
            return
        first = distributed.get_global_rank(self.group, 0)
        for tensor in tensors:
            distributed.broadcast(tensor.data, first, group=self.group)

    def common(self, seed: int, device: torch.device) -> int:
        """Return the first process's seed."""
        if self.group is None:
            return seed  # a tensor on an accelerator would have to be waited for
        message = torch.tensor(seed, dtype=torch.int64, device=device)
        self.follow_first([message])
        return int(message)


def _is_group(group: object) -> bool:
    return distributed.is_available() and isinstance(group, distributed.ProcessGroup)
