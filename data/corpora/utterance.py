"""A corpus and its utterances, in an order that does not depend on the file system."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, overload

import pyarrow as pa

from codec.foundation import UserError
from data.decoding import AudioPart, AudioSource, BadRow, printable

_BESIDE = (".txt", ".lab", ".normalized.txt", ".original.txt", ".json", ".TextGrid", ".srt", ".vtt")
LOOKED_AT = 200  # utterances without text for which a file beside them is looked for


def words_type(seconds: pa.DataType) -> pa.DataType:
    """Of a column of word times."""
    return pa.list_(pa.struct([("word", pa.string()), ("start", seconds), ("end", seconds)]))


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
class StoredWords(Sequence[Word]):
    """Words that stay in their table until somebody reads them: a large corpus has too many to hold as objects."""

    column: pa.ChunkedArray
    row: int

    def _words(self) -> list[Word]:
        return [Word(cell["word"], cell["start"], cell["end"]) for cell in self.column[self.row].as_py()]

    def __reduce__(self) -> tuple[type, tuple[list[Word]]]:
        return tuple, (self._words(),)  # another process needs these alone

    def __len__(self) -> int:
        return len(self.column[self.row])

    @overload
    def __getitem__(self, index: int) -> Word: ...
    @overload
    def __getitem__(self, index: slice) -> list[Word]: ...
    def __getitem__(self, index: int | slice) -> Word | list[Word]:
        return self._words()[index]

    def __iter__(self) -> Iterator[Word]:
        return iter(self._words())


def words_column(rows: Sequence[Sequence[Word] | None]) -> list[list[dict[str, Any]] | None]:
    """Word times as values of a column of `words_type`."""
    return [
        None if words is None else [{"word": w, "start": s, "end": e} for w, s, e in words] for words in rows
    ]


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


@dataclass
class Tally:
    """What is counted of utterances that pass by in the order of a corpus.

    splits: how many by split
    texts: how many with a text
    bare: without one though they can be used
    beside: of the first 200 of these, those with a file of the same name that may be their text
    """

    splits: Counter[str] = field(default_factory=Counter)
    texts: int = 0
    bare: int = 0
    beside: int = 0
    _digest: Any = field(default_factory=hashlib.sha256, repr=False)

    def count(self, utterances: Iterable[Utterance]) -> Iterator[Utterance]:
        """The same utterances, counted."""
        for utterance in utterances:
            self.splits[utterance.split] += 1
            self.texts += utterance.text is not None
            if utterance.text is None and not isinstance(utterance.path, BadRow):
                self.beside += self.bare < LOOKED_AT and _has_text_beside(utterance)
                self.bare += 1
            self._digest.update(_line(utterance))
            yield utterance

    @property
    def hash(self) -> str:
        """16 hex digits over what was listed, without the audio and its place."""
        return self._digest.hexdigest()[:16]


def _line(u: Utterance) -> bytes:
    words = [list(word) for word in u.words] if u.words is not None else None
    line: list[Any] = [u.id, u.text, u.speaker, u.language, u.split, words]
    if u.prompt is not None:
        line.append(u.prompt.text)
    if isinstance(u.path, AudioPart):
        line.append([u.path.start, u.path.seconds, u.path.channel])
    return json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _has_text_beside(utterance: Utterance) -> bool:
    if not isinstance(utterance.path, str | os.PathLike):
        return False
    stem = os.path.splitext(os.fspath(utterance.path))[0]
    return any(os.path.exists(stem + suffix) for suffix in _BESIDE)


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
        return in_usual_order(Counter(utterance.split for utterance in self.utterances))

    def tally(self) -> Tally:
        """What can be counted of the utterances."""
        tally = Tally()
        for _ in tally.count(self.utterances):
            pass
        return tally

    def part(self, utterances: Iterable[Utterance]) -> "Corpus":
        """A corpus of some of its utterances, or of what became of them."""
        return Corpus(
            self.name, self.location, self.format, list(utterances), self.audio_column, self.noticed
        )

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
        return self.tally().hash


def checked(
    utterances: Iterable[Utterance],
    location: str,
    format: str,
    speaker: str | None = None,
    language: str | None = None,
) -> Iterator[Utterance]:
    """Utterances that come sorted (see `order`), with a speaker and a language filled in where none is known.

    Of utterances with one id all but the first are failures, and so is text that another encoding was taken for.
    Raises UserError when there is no utterance, or none that can be used.
    """
    count, usable, first, former = 0, False, None, None
    for latter in utterances:
        if former is not None and former.id == latter.id and not isinstance(latter.path, BadRow):
            both = latter.path if isinstance(former.path, BadRow) else f"{former.path} and {latter.path}"
            reason = printable(f"two utterances have the id {former.id!r} ({both}): ids must be unique")
            latter = Utterance(latter.id, BadRow(reason), split=latter.split)
        if "\0" in (latter.text or "") and not isinstance(latter.path, BadRow):
            reason = printable(f"{latter.path}: its text holds NUL characters: is --encoding right?")
            latter = Utterance(latter.id, BadRow(reason), split=latter.split)
        if speaker or language:
            latter = replace(latter, speaker=latter.speaker or speaker, language=latter.language or language)
        count, usable = count + 1, usable or not isinstance(latter.path, BadRow)
        first, former = first or latter, latter
        yield latter
    if first is None:
        raise UserError(f"{location}: read as {format}, it holds no utterance")
    if not usable:
        raise UserError(f"none of {count:,} rows can be used; the first: {first.path}")


def in_usual_order(splits: Mapping[str, int]) -> dict[str, int]:
    """Train, validation, test, others."""
    order = {"train": 0, "validation": 1, "test": 2}
    return dict(sorted(splits.items(), key=lambda item: (order.get(item[0], 3), item[0])))


def order(utterance: Utterance) -> tuple[str, bool]:
    """What utterances are sorted by."""
    return utterance.id, isinstance(utterance.path, BadRow)


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
