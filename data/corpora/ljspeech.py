"""The LJSpeech layout: `metadata.csv` (`id|text|normalised text`) beside `wavs/<id>.wav` (or .flac, ...; `wav/` and
`audio/` do as well).

LJSpeech itself comes without a split. Its last two chapters (of 50) are held out: LJ049 for validation, LJ050 for
testing, some 250 utterances each. Whole chapters, because neighbours in a chapter share their words.
"""

import os
import re
from pathlib import Path

from codec.foundation import UserError
from data.corpora.reading import Reading, bad_utterance
from data.corpora.utterance import Utterance, split_name
from data.recordings import AUDIO_EXTENSIONS

_PUBLISHED = re.compile(r"LJ(?P<chapter>\d{3})-\d{4}")
_HELD_OUT = {"049": "validation", "050": "test"}
_AUDIO_FOLDERS = ("wavs", "wav", "audio")
_SPLIT_FILES = ("train", "dev", "valid", "val", "validation", "test")


def ljspeech_audio(root: Path) -> Path | None:
    """The folder of the recordings beside `metadata.csv`; None if there is none."""
    return next((root / name for name in _AUDIO_FOLDERS if (root / name).is_dir()), None)


def read_ljspeech(root: Path, reading: Reading) -> list[Utterance]:
    """The rows of `metadata.csv`; the normalised text where there is one.

    Files `train.txt`, `dev.txt`, `test.txt` (one id a line; anything after a `|` is ignored) give the splits. Rows that
    no file lists are training data, unless there is a `train.txt`: then they are skipped. Without any such file, the
    ids of the published LJSpeech are split by chapter.

    A malformed row and an id that was there already have a `BadRow` as audio. Raises UserError for a split file that
    lists unknown ids or ids of another split.
    """
    metadata = root / "metadata.csv"
    texts: dict[str, str | None] = {}
    bad: list[Utterance] = []
    for number, line in _lines(metadata, reading):
        columns = line.split("|")
        identity = columns[0].strip()
        place = f"{metadata}, line {number}"
        if len(columns) < 2 or not identity or any(column.strip() for column in columns[3:]):
            reason = f"{place}: expected `id|text|normalised text`, found {line[:60]!r}"
            bad.append(bad_utterance(f"metadata-line-{number}", reason))
            continue
        if identity in texts:
            bad.append(
                bad_utterance(identity, f"{place}: the id {identity!r} was there already: ids must be unique")
            )
            continue
        normalised = columns[2].strip() if len(columns) > 2 else ""
        texts[identity] = normalised or columns[1].strip() or None
        reading.used.setdefault("text", {})["the third" if normalised else "the second"] = None
    folder = ljspeech_audio(root) or root / "wavs"
    files = _audio_by_stem(folder, reading)
    splits = _splits(root, texts, reading)
    reading.left_out["rows of metadata.csv that no split file lists"] += len(texts.keys() - splits.keys())
    reading.left_out["recordings that metadata.csv does not list"] += len(files.keys() - texts.keys())
    return bad + [
        # A row without a recording keeps its place: reading it is a failure that gets counted.
        Utterance(identity, files.get(identity, str(folder / f"{identity}.wav")), text, split=split)
        for identity, text in texts.items()
        if (split := splits.get(identity)) is not None
    ]


def _splits(root: Path, texts: dict[str, str | None], reading: Reading) -> dict[str, str]:
    listed: dict[str, str] = {}
    has_train = False
    for name in _SPLIT_FILES:
        path, split = root / f"{name}.txt", split_name(name)
        if split is None or not path.is_file():
            continue
        has_train = has_train or split == "train"
        for _, line in _lines(path, reading):
            identity = line.split("|")[0].strip()
            if identity not in texts:
                raise UserError(f"{path}: the id {identity!r} is not in metadata.csv")
            if listed.setdefault(identity, split) != split:
                raise UserError(f"{path}: the id {identity!r} is also in the {listed[identity]} split")
    if has_train:
        return listed
    return {identity: _chapter_split(identity) if not listed else "train" for identity in texts} | listed


def _chapter_split(identity: str) -> str:
    published = _PUBLISHED.fullmatch(identity)
    return _HELD_OUT.get(published["chapter"], "train") if published else "train"


def _audio_by_stem(folder: Path, reading: Reading) -> dict[str, str]:
    """Path by id; of several files for one id the first by name."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    found: dict[str, str] = {}
    for name in names:
        stem, extension = os.path.splitext(name)
        if extension.lower() in AUDIO_EXTENSIONS:
            path = str(folder / name)
            reading.left_out["recordings of an id that has another"] += found.setdefault(stem, path) != path
    return found


def _lines(path: Path, reading: Reading) -> list[tuple[int, str]]:
    """Numbered lines that hold anything. They end at line feeds only: texts may hold characters such as U+2028."""
    return [(number, line.rstrip("\r\n")) for number, line in reading.lines(path) if line.strip()]
