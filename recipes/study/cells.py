"""Cells: finished pieces of work, found again by the content of what they were made from.

STUDY/cells/STAGE-NAME-KEY/result.json     written last: its presence says that the cell is finished
STUDY/cells/STAGE-NAME-KEY/...             whatever else the work leaves
"""

import hashlib
import json
import math
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codec.foundation import write_json

_RESULT = "result.json"
_KEY_DIGITS = 12


class Stopped(Exception):
    """Work was asked to stop before it was done; it goes on when it is started again."""


@dataclass(frozen=True)
class Stage:
    """A piece of work.

    `inputs` is all that decides the outcome, as JSON has it: settings and content hashes, no places. `work` writes
    into the directory it is given and returns what is to be known of it, again as JSON; NaN becomes null.
    """

    name: str
    of: str  # the tokenizer, for people
    inputs: Mapping[str, Any]
    work: Callable[[Path], Mapping[str, Any]]
    resumes: bool = False  # whether it can go on in the directory that a killed process left
    version: int = 1  # of the work: another one is another cell

    @property
    def key(self) -> str:
        """Hexadecimal digits that name the outcome."""
        content = json.dumps([self.name, self.version, self.inputs], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()[:_KEY_DIGITS]


@dataclass(frozen=True)
class Cell:
    """A finished piece of work."""

    path: Path
    result: Mapping[str, Any]
    seconds: float  # that it took, in the process that finished it


class Cells:
    """The cells of a study."""

    def __init__(self, root: Path):
        self.root = root

    def find(self, stage: Stage) -> Cell | None:
        """The finished cell, if it is there."""
        path = self._path(stage)
        try:
            content = json.loads((path / _RESULT).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return Cell(path, content["result"], content["seconds"])

    def make(self, stage: Stage) -> Cell:
        """The cell, worked out unless it is there."""
        if (cell := self.find(stage)) is not None:
            return cell
        path = self._path(stage)
        if path.exists() and not stage.resumes:
            shutil.rmtree(path)  # half of it, by a process that was killed
        path.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        result = without_nan(stage.work(path))
        seconds = round(time.monotonic() - started, 3)
        write_json(path / _RESULT, {"inputs": stage.inputs, "seconds": seconds, "result": result})
        made = self.find(stage)  # as it will be read: the same whether it was just made or was there
        assert made is not None
        return made

    def _path(self, stage: Stage) -> Path:
        name = re.sub(r"[^\w.-]+", "_", stage.of).strip("._") or "_"
        return self.root / f"{stage.name}-{name}-{stage.key}"


def without_nan(value: Any) -> Any:
    """As JSON can have it: NaN and infinities as null, at any depth."""
    if isinstance(value, Mapping):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
