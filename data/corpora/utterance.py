"""A corpus and its utterances, in an order that does not depend on the file system."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from codec.foundation import UserError
from data.decoding import AudioPart, AudioSource, BadRow, printable


class Word(NamedTuple):
    """A word as it is written, and when it is spoken: seconds from the beginning of the recording.

    Both times are None for a word that could not be placed. It stays in the list, because the words joined by spaces
    are the transcript; it is spoken somewhere between its placed neighbours.
    """

    word: str
    start: float | None
    end: float | None

    @property
    def placed(self) -> bool:
        """Whether its times are known."""
        return self.start is not None and self.end is not None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A recording and its text, which show a text-to-speech system the voice to speak an utterance with."""

    path: AudioSource
    text: str


@dataclass(frozen=True, slots=True)
class Utterance:
    """One recording and what is known about it."""

    id: str  # unique in its corpus
    path: AudioSource  # a file, or an object that opens the audio of a dataset's row
    text: str | None = None
    speaker: str | None = None
    language: str | None = None
    split: str = "train"
    words: Sequence[Word] | None = None
    prompt: Prompt | None = None  # of test sets for zero-shot text to speech


@dataclass
class Noticed:
    """What the readers of a corpus took from it, and what they passed over.

    used: columns by what they are
    columns: all columns that are there
    left_out: how many of what
    text_files: files that look like transcripts and were not read, by extension
    """

    used: dict[str, dict[str, None]] = field(default_factory=dict)
    columns: dict[str, None] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    text_files: Counter[str] = field(default_factory=Counter)

    @property
    def ignored(self) -> list[str]:
        """Columns that nothing was taken from."""
        used = {column for columns in self.used.values() for column in columns}
        return [column for column in self.columns if column not in used]


@dataclass(frozen=True)
class Corpus:
    """Utterances sorted by id; `location` is where they came from, `format` how they were laid out there."""

    name: str
    location: str
    format: str
    utterances: Sequence[Utterance] = field(repr=False)
    audio_column: str | None = None  # where one was chosen
    noticed: Noticed = field(default_factory=Noticed, repr=False, compare=False)

    def split(self, name: str) -> list[Utterance]:
        """The utterances of `train`, `validation` or `test`."""
        return [utterance for utterance in self.utterances if utterance.split == name]

    @property
    def splits(self) -> dict[str, int]:
        """Number of utterances by split, in the usual order."""
        counts: dict[str, int] = {}
        for utterance in self.utterances:
            counts[utterance.split] = counts.get(utterance.split, 0) + 1
        order = {"train": 0, "validation": 1, "test": 2}
        return dict(sorted(counts.items(), key=lambda item: (order.get(item[0], 3), item[0])))

    def identity(self) -> dict[str, str | int]:
        """What names this corpus in the metadata of datasets that are made from it."""
        about: dict[str, str | int] = {
            "name": self.name,
            "format": self.format,
            "utterances": len(self.utterances),
            "hash": self.content_hash(),
        }
        return about | ({"audio_column": self.audio_column} if self.audio_column else {})

    def content_hash(self) -> str:
        """16 hex digits over what the corpus lists, without the audio and the place of the corpus."""
        digest = hashlib.sha256()
        for u in self.utterances:
            words = [list(word) for word in u.words] if u.words is not None else None
            line: list[Any] = [u.id, u.text, u.speaker, u.language, u.split, words]
            if u.prompt is not None:
                line.append(u.prompt.text)
            if isinstance(u.path, AudioPart):
                line.append([u.path.start, u.path.seconds, u.path.channel])
            digest.update(json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        return digest.hexdigest()[:16]


def make_corpus(
    name: str,
    location: str,
    format: str,
    utterances: Iterable[Utterance],
    speaker: str | None = None,
    language: str | None = None,
) -> Corpus:
    """Sort the utterances, and fill in a speaker and a language where none is known.

    Of utterances with one id all but the first are failures. Raises UserError when there is no utterance, or none that
    can be used.
    """
    ordered = sorted(utterances, key=lambda utterance: (utterance.id, isinstance(utterance.path, BadRow)))
    if not ordered:
        raise UserError(f"{location}: read as {format}, it holds no utterance")
    for place in range(1, len(ordered)):
        former, latter = ordered[place - 1], ordered[place]
        if former.id == latter.id and not isinstance(latter.path, BadRow):
            both = latter.path if isinstance(former.path, BadRow) else f"{former.path} and {latter.path}"
            reason = printable(f"two utterances have the id {former.id!r} ({both}): ids must be unique")
            ordered[place] = Utterance(latter.id, BadRow(reason), split=latter.split)
    if isinstance(ordered[0].path, BadRow) and all(isinstance(u.path, BadRow) for u in ordered):
        raise UserError(f"none of {len(ordered):,} rows can be used; the first: {ordered[0].path}")
    if speaker or language:
        ordered = [replace(u, speaker=u.speaker or speaker, language=u.language or language) for u in ordered]
    return Corpus(name, location, format, ordered)


SPLIT_WORDS: Mapping[str, str] = {
    "train": "train",
    "dev": "validation",
    "valid": "validation",
    "val": "validation",
    "validation": "validation",
    "eval": "validation",
    "test": "test",
}
# Names of files that say nothing about the corpus they list.
_GENERIC_NAMES = {"manifest", "metadata", "meta", "data", "utterances", *SPLIT_WORDS}


def split_name(name: str) -> str | None:
    """`train`, `validation` or `test` for the names in use (`train-clean-100`, `dev.other`, `val`); else None."""
    head = name.strip().lower().replace("_", "-").replace(".", "-").split("-")[0]
    return SPLIT_WORDS.get(head)


def corpus_name(location: Path) -> str:
    """A name for a corpus: that of its directory, or that of its list unless the list has a generic name.

    `kathleen/manifest.jsonl` and `kathleen/train.csv` are `kathleen`, `lists/kathleen.jsonl` is `kathleen`.
    """
    location = location.resolve()
    if location.is_dir():
        return location.name
    return location.parent.name if location.stem.lower() in _GENERIC_NAMES else location.stem
