"""The LJSpeech layout: `metadata.csv` (`id|text|normalised text`) beside `wavs/<id>.wav` (or .flac, ...).

LJSpeech itself comes without a split. Its last two chapters (of 50) are held out: LJ049 for validation, LJ050 for
testing, some 250 utterances each. Whole chapters, because neighbours in a chapter share their words.
"""

import os
import re
from pathlib import Path

from codec.foundation import UserError
from data.audio import AUDIO_EXTENSIONS
from data.corpora.utterance import Utterance, split_name

_PUBLISHED = re.compile(r"LJ(?P<chapter>\d{3})-\d{4}")
_HELD_OUT = {"049": "validation", "050": "test"}
_SPLIT_FILES = ("train", "dev", "valid", "val", "validation", "test")


def read_ljspeech(root: Path) -> list[Utterance]:
    """The rows of `metadata.csv`; the normalised text where there is one.

    Files `train.txt`, `dev.txt`, `test.txt` (one id a line; anything after a `|` is ignored) give the splits. Rows that
    no file lists are training data, unless there is a `train.txt`: then they are skipped. Without any such file, the
    ids of the published LJSpeech are split by chapter.

    Raises UserError for a malformed row, and for a split file that lists unknown ids or ids of another split.
    """
    metadata = root / "metadata.csv"
    texts: dict[str, str | None] = {}
    for number, line in enumerate(_lines(metadata), start=1):
        columns = line.split("|")
        if len(columns) < 2 or not columns[0].strip():
            raise UserError(
                f"{metadata}, line {number}: expected `id|text|normalised text`, found {line[:60]!r}"
            )
        identity = columns[0].strip()
        if identity in texts:
            raise UserError(
                f"{metadata}, line {number}: the id {identity!r} was there already: ids must be unique"
            )
        normalised = columns[2].strip() if len(columns) > 2 else ""
        texts[identity] = normalised or columns[1].strip() or None
    files = _audio_by_stem(root / "wavs")
    splits = _splits(root, texts)
    return [
        # A row without a recording keeps its place: reading it is a failure that gets counted.
        Utterance(identity, files.get(identity, str(root / "wavs" / f"{identity}.wav")), text, split=split)
        for identity, text in texts.items()
        if (split := splits.get(identity)) is not None
    ]


def _splits(root: Path, texts: dict[str, str | None]) -> dict[str, str]:
    listed: dict[str, str] = {}
    has_train = False
    for name in _SPLIT_FILES:
        path, split = root / f"{name}.txt", split_name(name)
        if split is None or not path.is_file():
            continue
        has_train = has_train or split == "train"
        for line in _lines(path):
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


def _audio_by_stem(folder: Path) -> dict[str, str]:
    """Path by id; of several files for one id the first by name."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    found: dict[str, str] = {}
    for name in names:
        stem, extension = os.path.splitext(name)
        if extension.lower() in AUDIO_EXTENSIONS:
            found.setdefault(stem, str(folder / name))
    return found


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 (byte {error.start}): convert it, for instance with iconv"
        ) from None
    # Not splitlines(): texts may hold characters such as U+2028 that it takes for line ends.
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]
