"""What a command must not write: one of its inputs, somebody's recording, an address that is no path."""

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from codec.foundation.errors import UserError
from data.recordings import refuse_recording
from recipes.inputs import STANDARD

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_LONGEST = 4096  # characters of a path


def check_output(values: Mapping[str, Any]) -> None:
    """Look at a command's arguments before it starts; `output` is what it writes.

    Raises UserError when that is an address, or one of the inputs under whatever name.
    """
    output = values.get("output")
    if not isinstance(output, str | Path) or str(output) in ("", STANDARD):
        return
    if _ADDRESS.match(str(output)):
        raise UserError(f"--output {output}: addresses cannot be written to: give a path on this machine")
    refuse_recording(output)
    written = _identity(output)
    if written is None:
        return
    for name, value in values.items():
        if name == "output":
            continue
        for path in _strings(value):
            if _identity(path) == written:
                raise UserError(f"--output {output}: is an input of this command: give another")


def _strings(value: Any) -> Iterator[str | Path]:
    """All strings and paths in a value, its lists and its settings."""
    if isinstance(value, str | Path):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _strings(getattr(value, field.name))
    elif isinstance(value, Mapping):
        yield from _strings(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _identity(path: str | Path) -> tuple[int, int] | None:
    """What is the same for all names of one file; None where none is."""
    if not 0 < len(str(path)) <= _LONGEST:
        return None
    try:
        about = os.stat(path)
    except (OSError, ValueError):
        return None
    return about.st_dev, about.st_ino
