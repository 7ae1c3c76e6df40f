"""Processes that split data or candidates, and the messages between them.

Data: the losses of a problem are means over the processes, ℓ = Σ_p ℓ_p / N and
L = Σ_p L_p / N. Derivatives with respect to θ and the losses of candidates are averaged
wherever later results depend on them. ∂/∂λ is linear in both and is averaged once, at
the end.

Candidates: all processes hold the same data, and process p evaluates the candidates k
with k mod N = p. The losses of candidates, and sums over candidates, are summed over
the processes.

In both cases every process then takes the same step.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed

if TYPE_CHECKING:  # some builds of torch lack it
    from torch.distributed import ProcessGroup


class Processes:
    """The members of a process group, or this process alone.

    Args:
        group: a group of ``torch.distributed``. None: this process alone.

    Attributes:
        group: as given.
        count: the number of processes.
        rank: the number of this process, from 0.

    Raises:
        TypeError: if ``group`` is anything else.
    """

    def __init__(self, group: "ProcessGroup | None" = None) -> None:
        if group is not None and not _is_group(group):
            raise TypeError(
                f"expected process_group to be a torch.distributed.ProcessGroup, got "
                f"{type(group).__name__}; use torch.distributed.group.WORLD for all "
                f"processes"
            )
        self.group = group
        self.count = 1 if group is None else group.size()
        self.rank = 0 if group is None else group.rank()

    def sums(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the sums over all processes.

        Cost: one message of the tensors' size for each dtype and device.
        """
        sums = list(tensors)
        if self.group is None:
            return sums
        alike = defaultdict(list)
        for position, tensor in enumerate(tensors):
            alike[tensor.dtype, tensor.device].append((position, tensor))
        for members in alike.values():
            message = torch.cat([tensor.detach().flatten() for _, tensor in members])
            distributed.all_reduce(message, group=self.group)
            parts = message.split([tensor.numel() for _, tensor in members])
            for (position, tensor), part in zip(members, parts, strict=True):
                sums[position] = part.view(tensor.shape)
        return sums

    def mean(self, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return the means over all processes; None stays None.

        Cost: as :meth:`sums`.
        """
        if self.group is None:
            return list(tensors)
        sums = iter(self.sums([tensor for tensor in tensors if tensor is not None]))
        return [
            None if tensor is None else next(sums).div_(self.count)
            for tensor in tensors
        ]

    def means(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the means over all processes, of tensors without None."""
        return [tensor for tensor in self.mean(tensors) if tensor is not None]

    def share(self, count: int) -> range:
        """Return which of ``count`` candidates this process evaluates; may be empty."""
        return range(self.rank, count, self.count)

    def gathered(self, values: Sequence[Tensor], count: int) -> Tensor:
        """Return one number for each of ``count`` candidates, shape (count,).

        Args:
            values: the values of this process's :meth:`share`, scalars. A process
                without candidates passes any one value of the right dtype and device.
            count: K.

        Cost: one message of ``count`` numbers.
        """
        own = torch.stack(list(values))
        if self.group is None:
            return own
        message = own.new_zeros(count, *own.shape[1:])
        message[self.rank :: self.count] = own[: len(self.share(count))]
        distributed.all_reduce(message, group=self.group)
        return message

    def check_apart(self, population: "Processes") -> None:
        """Raise an error if the same processes would split both data and candidates.

        Args:
            population: the processes that split candidates; ``self`` splits data.

        Raises:
            ValueError: if the two groups have more than this process in common.
        """
        if self.group is None or population.group is None:
            return
        ranks = [
            set(distributed.get_process_group_ranks(group))
            for group in (self.group, population.group)
        ]
        both = sorted(ranks[0] & ranks[1])
        if len(both) > 1:
            raise ValueError(
                f"expected EvoGrad's process_group and that of the step to have only "
                f"this process in common, got processes {both} in both: the first "
                f"splits candidates among processes with the same data, the second "
                f"splits the data; make a group for each with "
                f"torch.distributed.new_group, or leave one out"
            )

    def follow_first(self, tensors: Sequence[Tensor]) -> None:
        """Copy the first process's values of ``tensors`` to all processes."""
        if self.group is None:
            return
        first = distributed.get_global_rank(self.group, 0)
        for tensor in tensors:
            distributed.broadcast(tensor.data, first, group=self.group)

    def common(self, seed: int, device: torch.device) -> int:
        """Return the first process's seed."""
        if self.group is None:
            return seed  # without a tensor, which would cost a synchronisation
        message = torch.tensor(seed, dtype=torch.int64, device=device)
        self.follow_first([message])
        return int(message)


def _is_group(group: object) -> bool:
    return distributed.is_available() and isinstance(group, distributed.ProcessGroup)
