"""What the schema of an aten call says of it."""

import functools
from typing import Any, NamedTuple

import torch

# They write to running statistics, which their schemas do not say and which does not
# count as another version. Position of the statistics among the arguments.
_UNMARKED_WRITES = {
    "aten::native_batch_norm": (3, 4),
    "aten::cudnn_batch_norm": (3, 4),
    "aten::miopen_batch_norm": (3, 4),
}

# Values leave the tensors here, and come back as numbers or as shapes that a replay
# cannot change.
_ESCAPES = frozenset({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape})


class Traits(NamedTuple):
    """What a call's schema says of it.

    Attributes:
        writes: positions of positional arguments that it writes to, and names of
            keyword arguments.
        unmarked: positions that it writes to without saying so.
        views: whether its results may share memory with its arguments.
        random: whether it draws random numbers.
        escapes: whether values leave the graph through it.
        copies: whether it copies its argument.
        plain: whether it is none of all this.
    """

    writes: tuple[int | str, ...]
    unmarked: tuple[int, ...]
    views: bool
    random: bool
    escapes: bool
    copies: bool
    plain: bool


@functools.cache
def traits_of(function: Any) -> Traits:
    """Return the traits of an aten call."""
    schema = function._schema
    writes: list[int | str] = []
    for position, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            writes.append(argument.name if argument.kwarg_only else position)
    found = (
        tuple(writes),
        _UNMARKED_WRITES.get(schema.name, ()),
        any(result.alias_info is not None for result in schema.returns),
        torch.Tag.nondeterministic_seeded in function.tags,
        bool(_ESCAPES & {*function.tags}),
        schema.name == "aten::clone",
    )
    return Traits(*found, plain=not any(found))
