"""What a corpus is made of: utterances, in an order that does not depend on the file system."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

from codec.runs import UserError
from data.audio import AudioSource


class Word(NamedTuple):
    """A spoken word and when: seconds from the beginning of the recording."""

    word: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Utterance:
    """One recording and what is known about it."""

    id: str  # unique in its corpus
    path: AudioSource  # a file, or an object that opens the audio of a dataset's row
    text: str | None = None
    speaker: str | None = None
    language: str | None = None
    split: str = "train"
    words: tuple[Word, ...] | None = None


@dataclass(frozen=True)
class Corpus:
    """Utterances sorted by id; `location` is where they came from, `format` how they were laid out there."""

    name: str
    location: str
    format: str
    utterances: Sequence[Utterance] = field(repr=False)

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

    def content_hash(self) -> str:
        """16 hex digits over what the corpus lists; not over audio, nor over where the corpus lies."""
        digest = hashlib.sha256()
        for u in self.utterances:
            words = [list(word) for word in u.words] if u.words is not None else None
            line = [u.id, u.text, u.speaker, u.language, u.split, words]
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
    """Sort the utterances, check that ids are unique, and fill in a speaker and a language where none is
    known.

    Raises UserError when there is no utterance, or when two have one id.
    """
    ordered = sorted(utterances, key=lambda utterance: utterance.id)
    if not ordered:
        raise UserError(f"{location}: read as {format}, it holds no utterance")
    for former, latter in pairwise(ordered):
        if former.id == latter.id:
            raise UserError(
                f"{location}: two utterances have the id {former.id!r} ({former.path} and {latter.path}): "
                "ids must be unique"
            )
    if speaker or language:
        ordered = [replace(u, speaker=u.speaker or speaker, language=u.language or language) for u in ordered]
    return Corpus(name, location, format, ordered)


_SPLITS: Mapping[str, str] = {
    "train": "train",
    "dev": "validation",
    "valid": "validation",
    "val": "validation",
    "validation": "validation",
    "eval": "validation",
    "test": "test",
}


def split_name(name: str) -> str | None:
    """`train`, `validation` or `test` for the names in use (`train-clean-100`, `dev.other`, `val`); else
    None.
    """
    head = name.strip().lower().replace("_", "-").replace(".", "-").split("-")[0]
    return _SPLITS.get(head)
