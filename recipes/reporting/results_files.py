"""Result files: opened, and known to be what they are taken for."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from codec.foundation import UserError

Kind = Literal["evaluate-codec", "evaluate-slm", "bench"]
# what only the files of this command have at their top
_MARKS: dict[Kind, tuple[str, ...]] = {
    "evaluate-codec": ("systems", "corpus"),
    "evaluate-slm": ("model", "codec"),
    "bench": ("budgets", "codecs"),
}
_SAID = ("command", "date", "device", "threads")


@dataclass(frozen=True)
class ResultFile:
    """One file of results."""

    path: Path
    content: Mapping[str, Any]

    @property
    def origin(self) -> str:
        """A line of Markdown: command, date, device."""
        said = self.content
        command = plain_command(said["command"])
        return f"`{command}`, {said['date']}, {said['device']}, {said['threads']} threads"


def open_results(path: Path, kind: Kind) -> ResultFile:
    """Read what the command `kind` left at a path, its directory or its file.

    Raises UserError for what is not there, not JSON, another command's, or does not say where it comes from.
    """
    if path.is_dir():
        path = path / ("bench.json" if kind == "bench" else "results.json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a file that codec-slm {kind} left") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); give a file that codec-slm {kind} left") from error
    if not isinstance(content, dict) or any(mark not in content for mark in _MARKS[kind]):
        raise UserError(f"{path}: not a file that codec-slm {kind} left")
    if missing := [name for name in _SAID if name not in content]:
        raise UserError(
            f"{path}: does not say its {missing[0]}; run codec-slm {kind} again, which writes it down"
        )
    return ResultFile(path, content)


def plain_command(command: str) -> str:
    """A command line without the folders of one machine: of an absolute path the last part is left."""
    words = shlex.split(command)
    return " ".join(shlex.quote(_plain(word)) for word in words)


def _plain(word: str) -> str:
    flag, equals, value = word.partition("=")
    if flag.startswith("-") and equals:
        return f"{flag}={_plain(value)}"
    path = PurePosixPath(word)
    is_elsewhere = path.is_absolute() or word.startswith(("~", "../"))
    return path.name or word if is_elsewhere else word
