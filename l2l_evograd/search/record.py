"""The evaluations of a search on disk, one line each, written as soon as they end."""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from l2l_evograd.checks import InputError
from l2l_evograd.search.evaluation import Evaluation

RECORD = "evaluations.jsonl"

_DIGEST = "digest"

# The parts of a search.
SEARCH = "search"
FRESH = "fresh"


class Record:
    """Evaluations that were finished before, and those that are finished now.

    The first line of the file says which search it is. Each line contains a digest of
    itself and of the line before, so that damaged, exchanged and missing lines are
    noticed. A process that is killed may leave half a line at the end; resuming cuts it
    off.

    Args:
        folder: folder of the file; None: nothing is kept.
        settings: what the evaluations depend on.
        resume: whether to go on with the search in ``folder``.

    Raises:
        InputError: if there is no search to resume, if it has other settings, if the
            file is damaged, if there is a search that is not resumed, or if the folder
            cannot be written to.
    """

    def __init__(
        self, folder: Path | None, settings: Mapping[str, Any], *, resume: bool
    ) -> None:
        self._known: dict[tuple[str, int], Evaluation] = {}
        self._path = None if folder is None else folder / RECORD
        self._digest = ""
        if self._path is None:
            if resume:
                raise InputError("expected a folder whose search to resume, got none")
            return
        exists = self._path.is_file()
        if resume and not exists:
            raise InputError(
                f"there is no search to resume: {self._path} does not exist; leave "
                f"resume out, or name the folder of the search"
            )
        if exists and not resume:
            raise InputError(
                f"{folder} already contains a search; resume it (resume=True) or "
                f"choose another folder"
            )
        header = {"settings": json.loads(_json(settings))}
        lines = _complete_lines(self._path) if exists else []
        if lines:
            self._read(lines, header["settings"])
        else:
            self._begin(header)

    def find(
        self, part: str, number: int, config: Mapping[str, Any], fidelity: int
    ) -> Evaluation | None:
        """Return an evaluation that was finished before the search was resumed.

        Args:
            part: :data:`SEARCH` or :data:`FRESH`.
            number: counts the evaluations of the part.
            config: the configuration that is to be evaluated.
            fidelity: for how long.

        Raises:
            InputError: if the search then evaluated something else. A fresh evaluation
                of something else is not found.
        """
        known = self._known.get((part, number))
        if known is None:
            return None
        if known.fidelity == fidelity and _json(known.config) == _json(config):
            # As it is proposed: JSON may have changed the types of values.
            return dataclasses.replace(known, config=dict(config))
        if part == FRESH:  # another budget has found another configuration
            return None
        raise InputError(
            f"evaluation {number + 1} in {self._path} has the configuration "
            f"{known.config} for {known.fidelity} steps, but the search now proposes "
            f"{dict(config)} for {fidelity}; go on with the versions of the libraries "
            f"that it began with, or begin anew in another folder"
        )

    def add(self, part: str, number: int, evaluation: Evaluation) -> None:
        """Write an evaluation, and wait until it is on the disk."""
        if self._path is None:
            return
        loss = evaluation.loss
        content = {
            "part": part,
            "number": number,
            "config": evaluation.config,
            "fidelity": evaluation.fidelity,
            "seed": evaluation.seed,
            # JSON has no NaN and no infinity.
            "loss": loss if math.isfinite(loss) else str(loss),
            "seconds": evaluation.seconds,
        }
        with self._path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(self._sealed(content) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _begin(self, header: Mapping[str, Any]) -> None:
        assert self._path is not None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            text = self._sealed(header) + "\n"
            self._path.write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise InputError(
                f"cannot write to {self._path.parent} ({error.strerror}); choose "
                f"another folder"
            ) from error

    def _read(self, lines: list[str], settings: Mapping[str, Any]) -> None:
        for number, line in enumerate(lines, start=1):
            content = self._opened(line, number)
            if number == 1:
                self._check(content["settings"], settings)
            else:
                key = (content["part"], content["number"])
                self._known[key] = _evaluation(content)

    def _sealed(self, content: Mapping[str, Any]) -> str:
        """Return the next line, with its digest."""
        self._digest = _digest(self._digest, content)
        return _json({**content, _DIGEST: self._digest})

    def _opened(self, line: str, number: int) -> dict[str, Any]:
        """Return the content of the next line, if it agrees with its digest."""
        try:
            content = json.loads(line)
            found = content.pop(_DIGEST)
            self._digest = _digest(self._digest, content)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            found = None
        if found is None or found != self._digest:
            raise InputError(
                f"line {number} of {self._path} is damaged, is missing or was edited: "
                f"it does not agree with its digest; restore the file, or remove this "
                f"line and all that follow, to make their evaluations again"
            )
        return dict(content)

    def _check(self, recorded: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        for name, value in settings.items():
            if recorded.get(name) != value:
                raise InputError(
                    f"expected {name} to be {recorded.get(name)} as in the search in "
                    f"{self._path}, got {value}; use that, or begin another search in "
                    f"another folder"
                )


def _digest(before: str, content: Mapping[str, Any]) -> str:
    """Return the digest of a line that follows the line with the digest ``before``."""
    text = json.dumps(json.loads(_json(content)), sort_keys=True)
    return hashlib.sha256(f"{before} {text}".encode()).hexdigest()[:16]


def _evaluation(content: Mapping[str, Any]) -> Evaluation:
    return Evaluation(
        config=dict(content["config"]),
        fidelity=int(content["fidelity"]),
        seed=int(content["seed"]),
        loss=float(content["loss"]),
        seconds=float(content["seconds"]),
    )


def _complete_lines(path: Path) -> list[str]:
    """Return the lines of a file that end, after cutting off a last one that does not.

    Raises:
        InputError: if the file is not text in UTF-8.
    """
    content = path.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]
    if len(complete) < len(content):
        os.truncate(path, len(complete))
    try:
        return complete.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a record: it is not text in UTF-8") from error


def _json(content: Any) -> str:
    """Return JSON of one line; what JSON does not know by its ``repr``."""
    return json.dumps(content, default=repr, allow_nan=True)
