"""A folder of audio files, at any depth; a transcript may lie beside a file as `<name>.txt` or `<name>.lab`."""

import os
from collections.abc import Iterator
from pathlib import Path

from data.audio import AUDIO_EXTENSIONS
from data.corpora.utterance import Utterance

_TRANSCRIPTS = (".txt", ".lab")


def read_folder(root: Path) -> list[Utterance]:
    """Every audio file below `root`, all of it training data; ids are paths without extension."""
    return [
        Utterance(path.relative_to(root).with_suffix("").as_posix(), str(path), _transcript(path))
        for path in audio_files(root)
    ]


def audio_files(root: Path) -> Iterator[Path]:
    """Audio files below `root` by extension; hidden files and folders are skipped."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in AUDIO_EXTENSIONS:
                yield Path(folder, name)


def _transcript(path: Path) -> str | None:
    for extension in _TRANSCRIPTS:
        beside = path.with_suffix(extension)
        if beside.is_file():
            return beside.read_text(encoding="utf-8", errors="replace").strip() or None
    return None
