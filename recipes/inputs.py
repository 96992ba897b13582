"""What can be known to be wrong before a model is loaded: texts, voices, recordings, where audio goes. Light."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from codec.foundation.errors import UserError
from data.recordings import written_format
from slm.bundled import known_voices

STANDARD = "-"  # standard input or output


def check_audio_output(output: str | Path) -> None:
    """Raises UserError unless an audio file can be written there."""
    if str(output) == STANDARD:
        return
    path = Path(output)
    written_format(path)
    if path.is_dir():
        raise UserError(f"{path}: cannot be written as audio (it is a directory)")
    if not path.parent.is_dir():
        raise UserError(f"{path}: cannot be written as audio (no directory {path.parent})")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path.parent}: is not ours to write to: give another --output")


def check_folder_output(output: str | Path) -> None:
    """Raises UserError unless it is a directory, or can become one."""
    path = Path(output)
    there = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise UserError(f"{path}: is no directory to write to ({there} is a file)")
    if not os.access(there, os.W_OK):
        raise UserError(f"{there}: is not ours to write to: give another --output")


def check_recording(path: str | Path) -> None:
    """Raises UserError unless there is a file, or it stands for standard input."""
    if str(path) != STANDARD and not Path(path).is_file():
        raise UserError(f"{path}: no such recording")


def check_voice(model: str, voice: str | None) -> None:
    """Raises UserError for a voice that is neither a recording nor known to be the model's."""
    known = known_voices(model)
    if voice is not None and known is not None and voice not in known and not Path(voice).exists():
        raise UserError(
            f"{voice} is neither a recording nor one of the model's voices ({', '.join(known) or 'none'})"
        )


def read_text(text: str) -> str:
    """A text, or what standard input holds for `-`."""
    return sys.stdin.read() if text == STANDARD else text


def read_texts(path: Path, model: str) -> tuple[list[dict[str, Any]], int]:
    """The texts of a file, one a line, as rows with an id that can be a file's name; and how many lines were skipped.

    A file whose name or first line says so has JSON objects: `text`, and perhaps `id`, `voice`, `voice_text`. A line
    that cannot be used is named on standard error. Raises UserError where there is no file, or nothing in it.
    """
    try:
        content = sys.stdin.read() if str(path) == STANDARD else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    lines = content.splitlines()
    is_json = path.suffix == ".jsonl" or content.lstrip().startswith("{")
    width = len(str(len(lines)))
    rows: dict[str, dict[str, Any]] = {}
    skipped = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = _row(line, is_json)
            row["id"] = str(row.get("id", f"{number:0{width}}"))
            _check_row(row, rows, model)
        except UserError as error:
            print(f"{path}, line {number}: {error}; skipped", file=sys.stderr)
            skipped += 1
            continue
        rows[row["id"]] = row
    if not rows:
        raise UserError(f"{path}: holds no texts" + (" that can be used" if skipped else ""))
    return list(rows.values()), skipped


def _row(line: str, is_json: bool) -> dict[str, Any]:
    if not is_json:
        return {"text": line.strip()}
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"not JSON ({error})") from None
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise UserError('expected an object with a "text"')
    return row


def _check_row(row: dict[str, Any], rows: dict[str, Any], model: str) -> None:
    if unknown := row.keys() - {"id", "text", "voice", "voice_text"}:
        raise UserError(f"unknown field {sorted(unknown)[0]!r}")
    if not re.fullmatch(r"\w[\w.-]*", row["id"]):
        raise UserError(f"the id {row['id']!r} names a file: letters, digits, '-', '_' and '.' only")
    if row["id"] in rows:
        raise UserError(f"the id {row['id']!r} comes twice")
    if not any(map(str.isalnum, row["text"])):
        raise UserError(f"there is nothing to say in the text {row['text']!r}")
    check_voice(model, row.get("voice"))
