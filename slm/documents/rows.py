"""What is known of every row before any document is built: sizes, voices, and who else has the same voice."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import numpy as np

from codec import CodecInfo
from slm.documents.alignment import match_words
from slm.vocabulary import Vocabulary

_CHUNK = 8192  # texts at a time


class TokenRows(Protocol):
    """What documents need of a token dataset; `data.TokenDataset` is one."""

    @property
    def name(self) -> str: ...  # for errors

    @property
    def info(self) -> CodecInfo: ...

    @property
    def lengths(self) -> np.ndarray: ...  # (rows,) int64, codes in each stream

    def __len__(self) -> int: ...
    def codes(self, index: int, /) -> np.ndarray: ...  # (frames * num_quantizers,) uint16, frame-major
    def text(self, index: int, /) -> str | None: ...
    def speaker(self, index: int, /) -> str | None: ...
    def words(self, index: int, /) -> Sequence[tuple[str, float, float]] | None: ...


@dataclass(frozen=True)
class Source:
    """A token dataset in a mixture.

    Attributes:
        weight: its share of the mixture's tokens, relative to the other sources' weights. Without weights
            every row of every source comes once an epoch.
        voice: the voice of rows that have no speaker.
    """

    dataset: TokenRows
    weight: float | None = None
    voice: str | None = None


@dataclass(frozen=True)
class RowTable:
    """The rows of all sources, one after the other; all arrays are (rows,) unless they say otherwise."""

    source_starts: np.ndarray  # (sources + 1,) int64, where each source's rows begin
    speech: np.ndarray  # int32, speech tokens (of the quantizers that have tokens)
    text: np.ndarray  # int32, text tokens; 0 for no text
    units: np.ndarray  # int32, units of timed words; 0 where words are missing or do not match the text
    voice: np.ndarray  # int32, number of the voice, or -1
    voice_names: list[str]  # by number

    def __len__(self) -> int:
        return len(self.speech)


def measure(
    sources: Sequence[Source], vocabulary: Vocabulary, with_text: bool, with_words: bool, with_voices: bool
) -> RowTable:
    """Reads sizes and voices of all rows; texts, words and voices only if asked for, as they take the time."""
    starts = list(accumulate((len(source.dataset) for source in sources), initial=0))
    speech, text, units = (np.zeros(starts[-1], dtype=np.int32) for _ in range(3))
    voice = np.full(starts[-1], -1, dtype=np.int32)
    voices: dict[tuple[int, str], int] = {}
    for number, (source, start, end) in enumerate(zip(sources, starts[:-1], starts[1:], strict=True)):
        dataset = source.dataset
        frames = np.asarray(dataset.lengths) // dataset.info.num_quantizers
        speech[start:end] = frames * vocabulary.num_quantizers
        if with_voices:
            for row in range(end - start):
                # The speakers of two datasets are two, even if they are called the same.
                if name := dataset.speaker(row) or source.voice:
                    voice[start + row] = voices.setdefault((number, name), len(voices))
        if not with_text:
            continue
        for first in range(0, end - start, _CHUNK):
            rows = range(first, min(first + _CHUNK, end - start))
            texts = [dataset.text(row) or "" for row in rows]
            text[start + first : start + first + len(rows)] = vocabulary.count_text(texts)
            if with_words:
                for row, row_text in zip(rows, texts, strict=True):
                    units[start + row] = _count_units(row_text, dataset.words(row), int(frames[row]))
    return RowTable(np.array(starts), speech, text, units, voice, [name for _, name in voices])


def _count_units(text: str, words: Sequence[tuple[str, float, float]] | None, frames: int) -> int:
    timed = match_words(text, words) if text and words else None
    # Every span gets a frame at least, and a span may be a single unit.
    return len(timed.seconds) if timed is not None and len(timed.seconds) <= frames else 0


class Companions:
    """For each row another row of the same voice, drawn from a number."""

    def __init__(self, voice: np.ndarray):
        order = np.argsort(voice, kind="stable")
        starts = np.flatnonzero(np.diff(voice[order], prepend=-2))
        group = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(voice)))
        self._order = order
        self._place = np.empty_like(order)  # of a row in `order`
        self._place[order] = np.arange(len(order))
        self._start = starts[group]  # of the group, by place
        self._size = np.diff(starts, append=len(voice))[group]
        self._voice = voice

    def draw(self, rows: np.ndarray, fractions: np.ndarray) -> np.ndarray:
        """Other rows of the same voice, (rows,) int64, -1 where there is none; `fractions` are in [0, 1)."""
        place = self._place[rows]
        start, others = self._start[place], self._size[place] - 1
        step = 1 + (fractions * others).astype(np.int64)
        chosen = self._order[start + (place - start + step) % (others + 1)]
        return np.where((others > 0) & (self._voice[rows] >= 0), chosen, -1)
