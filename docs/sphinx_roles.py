"""An extension of the site: roles such as :class:`~.Exact` in docstrings become links.

mkdocstrings reads docstrings as Markdown, which knows no roles. A name that the site
does not describe stays as code.
"""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`(~?)\.?([\w.]+)`")


class SphinxRoles(griffe.Extension):
    """Replace the roles in every docstring that is loaded."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Replace the roles in the docstring of an object."""
        if obj.docstring is None:
            return

        def link(match: re.Match[str]) -> str:
            short, path = match.groups()
            shown = path.rpartition(".")[2] if short else path
            return (
                f'<autoref optional identifier="{_resolved(obj, path)}">'
                f"<code>{shown}</code></autoref>"
            )

        obj.docstring.value = _ROLE.sub(link, obj.docstring.value)


def _resolved(obj: griffe.Object, name: str) -> str:
    """Return the whole path of a name that a docstring uses."""
    scope: griffe.Object | None = obj
    while scope is not None:
        try:
            return scope.resolve(name)
        except griffe.NameResolutionError:
            scope = scope.parent  # type: ignore[assignment]
    return name if "." in name else f"l2l_evograd.{name}"
