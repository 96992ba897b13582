"""Speech with the times of its words and phones, how readers make it, and its line in a manifest."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from data.corpora import Word


@dataclass(frozen=True)
class TimedWord:
    """A written word with its punctuation; `start` and `end` in seconds."""

    word: str
    start: float
    end: float


@dataclass(frozen=True)
class TimedPhone:
    """A phone, or "sil" for a pause; `start` and `end` in seconds."""

    phone: str
    start: float
    end: float


@dataclass(frozen=True)
class Sentence:
    """A text, and how each of its words is spoken.

    "born in 1842." is spoken ("born", "in", "eighteen forty-two.").
    """

    text: str
    spoken: tuple[str, ...]

    @classmethod
    def plain(cls, text: str) -> "Sentence":
        """A text that is spoken as it is written."""
        return cls(text, tuple(text.split()))

    def __post_init__(self) -> None:
        if len(self.words) != len(self.spoken):
            raise ValueError(f"{len(self.spoken)} spoken parts for the words of {self.text!r}")

    @property
    def words(self) -> list[str]:
        """The written words."""
        return self.text.split()


@dataclass(frozen=True)
class Speech:
    """Audio, int16 `(samples,)` at `sampling_rate` Hz, with a timed word for each written word.

    `phones` is None for readers that do not tell them.
    """

    samples: np.ndarray
    sampling_rate: int
    words: Sequence[TimedWord]
    phones: Sequence[TimedPhone] | None = None

    @property
    def seconds(self) -> float:
        """Length of the audio in seconds."""
        return len(self.samples) / self.sampling_rate


class Reader(Protocol):
    """A synthesiser with one or more voices."""

    @property
    def speakers(self) -> Sequence[str]:
        """Names of its voices, as in corpora and voice tags."""
        ...

    def synthesize(self, sentence: Sentence, speaker: str, random: np.random.Generator) -> Speech:
        """Read a sentence; `random` decides speed and noise.

        Raises ValueError for a sentence that it cannot read, or whose words it cannot place.
        """
        ...


def manifest_line(
    id: str,
    audio: str,
    text: str,
    speaker: str,
    split: str,
    words: Sequence[TimedWord | Word] | None,
    language: str = "en",
    phones: Sequence[TimedPhone] | None = None,
    **more: str | float,
) -> str:
    """One utterance as a line of JSON for `data.open_corpus`; `words` is None when no word times are known.

    `phones` and `more` are extra fields, which `data.open_corpus` ignores.
    """
    row: dict[str, object] = {
        "id": id,
        "audio": audio,
        "text": text,
        "speaker": speaker,
        "language": language,
        "split": split,
        "words": None if words is None else [_times(one.word, one.start, one.end) for one in words],
    }
    if phones is not None:
        row["phones"] = [_times(one.phone, one.start, one.end) for one in phones]
    return json.dumps(row | more, ensure_ascii=False) + "\n"


def _times(name: str, start: float | None, end: float | None) -> list[str | float | None]:
    return [name, *(None if time is None else round(time, 4) for time in (start, end))]
