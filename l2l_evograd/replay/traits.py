"""Properties of an aten call, as its schema states them."""

import functools
from typing import Any, NamedTuple

import torch

# These calls write to running statistics. Their schemas do not say so, and the writes
# do not increase the version counter. The values are the argument positions of the
# statistics.
_UNMARKED_WRITES = {
    "aten::native_batch_norm": (3, 4),
    "aten::cudnn_batch_norm": (3, 4),
    "aten::miopen_batch_norm": (3, 4),
}

# Calls with these tags turn values of tensors into numbers or shapes, which a replay
# cannot change.
_ESCAPES = frozenset({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape})


class Traits(NamedTuple):
    """The properties of one aten call.

    Attributes:
        writes: the arguments that the call writes to: positions of positional
            arguments, and names of keyword arguments.
        unmarked: positions of arguments that the call writes to although its schema
            does not say so.
        views: whether its results may share memory with its arguments.
        random: whether it draws random numbers.
        escapes: whether it turns values of tensors into numbers or shapes.
        copies: whether it copies its argument.
        plain: whether none of the above applies.
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
