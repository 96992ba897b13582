"""WebDataset: tar files in which an utterance is an audio file and, of the same name, `.txt`, `.json` or `.cls` files.

The `.txt` is the text; the fields of the `.json` are columns as in a manifest, and `txt` and `cls` are columns too
(`--speaker_column cls` where the class is the speaker). Tar files are read as they are. One named by a split
(`dev-000000.tar`, or in a folder `dev/`) belongs to it; others are training data.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from codec.foundation import UserError
from data.corpora.emilia import ArchivedAudio, archived_files
from data.corpora.reading import TEXT_COLUMNS, Reading, bad_utterance, parse_json
from data.corpora.utterance import SPLIT_WORDS, Utterance, split_name
from data.decoding import printable
from data.recordings import AUDIO_EXTENSIONS, FFMPEG_EXTENSIONS

_TEXTS = (".txt", ".json", ".cls", ".lab")


def archives_in(path: Path) -> list[Path]:
    """The tar files in a directory and its folders; a tar file itself."""
    if path.is_file():
        return [path]
    return sorted([*path.glob("*.tar"), *path.glob("*/*.tar")])


def read_webdataset(path: Path, reading: Reading) -> list[Utterance]:
    """The utterances of all tar files; ids are names in them, with the archive's where two have one name.

    Raises UserError for a broken archive.
    """
    found = [(archive, utterance) for archive in archives_in(path) for utterance in _read(archive, reading)]
    if not found:
        raise UserError(f"{path}: the WebDataset layout is tar files of audio files: no audio in any here")
    counts = Counter(utterance.id for _, utterance in found)
    if max(counts.values()) == 1:
        return [utterance for _, utterance in found]
    root = path if path.is_dir() else path.parent
    return [
        replace(one, id=f"{printable(archive.relative_to(root).with_suffix('').as_posix())}/{one.id}")
        for archive, one in found
    ]


def _read(archive: Path, reading: Reading) -> list[Utterance]:
    audio: dict[str, ArchivedAudio] = {}
    about: dict[str, dict[str, bytes]] = {}
    twice: set[str] = set()  # of which it is not known what belongs together
    for file in archived_files(archive, _TEXTS):
        stem, extension = os.path.splitext(file.audio.name)
        kind = extension.lower().removeprefix(".")
        if extension.lower() in AUDIO_EXTENSIONS | FFMPEG_EXTENSIONS:
            if audio.setdefault(stem, file.audio) is not file.audio:
                twice.add(stem)
        elif file.content is not None:
            if about.setdefault(stem, {}).setdefault(kind, file.content) is not file.content:
                twice.update((stem, _key(stem)))
        else:
            reading.columns.setdefault(kind)
    split = _split(archive)
    found = []
    for stem, source in audio.items():
        identity, place = printable(stem), f"{archive}, {stem}"
        try:
            if {stem, _key(stem)} & twice:
                raise ValueError("the archive holds several files of this name")
            row = _row(about.get(stem) or about.get(_key(stem)) or {}, reading)
        except ValueError as error:
            found.append(bad_utterance(identity, f"{place}: {error}", split))
            continue
        utterance = reading.utterance(row, source, identity, split, place, (*TEXT_COLUMNS, "txt", "lab"))
        if utterance is not None:
            found.append(utterance)
    for stem in about.keys() - audio.keys() - {_key(stem) for stem in audio}:
        reading.left_out[f"{'/'.join(sorted(about[stem]))} files without audio beside them"] += 1
    return found


def _row(contents: Mapping[str, bytes], reading: Reading) -> dict[str, Any]:
    row: dict[str, Any] = {}
    if "json" in contents:
        parsed = parse_json(contents["json"])
        if not isinstance(parsed, dict):
            raise ValueError("its .json is no JSON object")
        row |= parsed
    for name in contents.keys() - {"json"}:
        row[name] = contents[name].decode(reading.encoding).strip()
    return row


def _key(stem: str) -> str:
    """A name up to its first dot, which is WebDataset's key."""
    folder, _, name = stem.rpartition("/")
    return f"{folder}/{name.partition('.')[0]}" if folder else name.partition(".")[0]


def _split(archive: Path) -> str:
    words = re.split(r"[-_.]", archive.stem.lower())
    named = next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)
    return named or split_name(archive.parent.name) or "train"
