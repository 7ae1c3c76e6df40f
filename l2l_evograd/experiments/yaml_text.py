"""Values from YAML text, as far as settings need YAML.

Numbers, ``true``, ``false`` and ``null`` are those of YAML 1.2's core schema, so that
``1e-3`` is a number and ``yes`` is a text, as in JSON. PyYAML's own rules are those of
YAML 1.1, in which it is the other way round. Anchors, aliases, tags and several
documents are refused: no settings need them, and with aliases a few lines can stand for
more than fits in memory.
"""

import re
from collections.abc import Iterator
from typing import Any

from l2l_evograd.experiments.values import shown

# Lists and mappings in each other. Settings have two.
_DEEPEST = 20

_WHOLE = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def from_yaml(text: str) -> Any:
    """Return the value that a YAML document stands for; None for an empty one.

    Raises:
        ValueError: for a text that is not YAML, or uses more of it than settings need.
            The message is one line.
        ModuleNotFoundError: if PyYAML is not installed.
    """
    import yaml

    try:
        events = _Events(iter(yaml.parse(text, Loader=yaml.SafeLoader)), yaml)
        return events.document()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f"line {mark.line + 1}, "
        what = getattr(error, "problem", None) or getattr(error, "reason", error)
        raise ValueError(line + " ".join(str(what).split())) from error


class _Events:
    """Reads values off the events of PyYAML's parser, which knows no types."""

    def __init__(self, events: Iterator[Any], yaml: Any) -> None:
        self._events = events
        self._yaml = yaml

    def document(self) -> Any:
        """Return the value of the only document."""
        yaml = self._yaml
        found = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    _refuse(event, "a second document begins; expected one")
                found = self._value(next(self._events), 0)
        return found

    def _value(self, event: Any, depth: int) -> Any:
        yaml = self._yaml
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            _refuse(event, "anchors and aliases (& and *) are not read")
        if event.tag is not None:
            _refuse(event, f"tags are not read: {shown(event.tag)}")
        if depth > _DEEPEST:
            _refuse(event, "too nested")
        if isinstance(event, yaml.ScalarEvent):
            plain = event.implicit[0]
            return _scalar(event) if plain else event.value
        if isinstance(event, yaml.SequenceStartEvent):
            return list(self._values(yaml.SequenceEndEvent, depth))
        return self._mapping(depth)

    def _values(self, end: type, depth: int) -> Iterator[Any]:
        for event in self._events:
            if isinstance(event, end):
                return
            yield self._value(event, depth + 1)

    def _mapping(self, depth: int) -> dict[str, Any]:
        yaml = self._yaml
        found: dict[str, Any] = {}
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            name = self._value(event, depth + 1)
            if not isinstance(name, str):
                _refuse(event, f"expected a name before a colon, got {shown(name)}")
            if name in found:
                _refuse(event, f"{shown(name)} is there several times")
            found[name] = self._value(next(self._events), depth + 1)
        return found


def _scalar(event: Any) -> Any:
    """Return what a plain word stands for."""
    word = event.value
    if word in _WORDS:
        return _WORDS[word]
    if _WHOLE.fullmatch(word):
        try:
            return int(word)
        except ValueError:  # of thousands of digits
            _refuse(event, f"a number of {len(word)} digits")
    return float(word) if _NUMBER.fullmatch(word) else word


def _refuse(event: Any, what: str) -> None:
    raise ValueError(f"line {event.start_mark.line + 1}, {what}")
