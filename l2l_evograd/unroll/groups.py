"""Groups of weights that share a learning rate, a momentum or a scale."""

from collections.abc import Sequence

from l2l_evograd.checks import InputError

# For each group one name, or several: of parameters, or of modules that hold them.
GroupNames = Sequence[str | Sequence[str]]


class Groups:
    """Which group each weight tensor belongs to.

    Args:
        names: the names of the weights.
        given: for each group one name or several. A name is that of a weight, or the
            part before a dot, for all weights below it. None: one group of all weights.

    Attributes:
        given: whether the user gave groups.
        count: number of groups G.
        of: for each weight the number of its group.

    Raises:
        InputError: if a name is unknown, or a weight is in no group or in two.
    """

    def __init__(self, names: Sequence[str], given: GroupNames | None) -> None:
        self.given = given is not None
        chosen = [[*names]] if given is None else [_listed(item) for item in given]
        self.count = len(chosen)
        found: dict[str, int] = {}
        for number, members in enumerate(chosen):
            for member in members:
                hit = [n for n in names if n == member or n.startswith(member + ".")]
                if not hit:
                    raise InputError(
                        f"expected groups to name weights, or modules that hold them, "
                        f"got {member!r}; the weights are {', '.join(names)}"
                    )
                for name in hit:
                    if found.setdefault(name, number) != number:
                        raise InputError(
                            f"expected every weight in one group, got {name!r} in "
                            f"groups {found[name]} and {number}"
                        )
        missing = [name for name in names if name not in found]
        if missing:
            raise InputError(
                f"expected every weight in one of the groups, got none for "
                f"{', '.join(missing)}"
            )
        self.of = [found[name] for name in names]


def _listed(item: str | Sequence[str]) -> list[str]:
    return [item] if isinstance(item, str) else list(item)
