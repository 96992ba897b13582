"""What is known of every row before any document is built: sizes, voices, and who else has the same voice."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from codec import CodecInfo
from slm.documents.text_rows import TextRows


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
    def words(self, index: int, /) -> Sequence[tuple[str, float | None, float | None]] | None: ...


@dataclass(frozen=True)
class UnitTable:
    """The words of all rows with their tokens, row after row; all arrays are (units,) but `starts`.

    Units are those of `slm.documents.word_frames`; a row none of whose words is placed has none.
    """

    starts: np.ndarray  # (rows + 1,) int64, where each row's units begin
    text: np.ndarray  # int32, text tokens
    speech: np.ndarray  # int32, speech tokens of its frames, 0 for a unit that is not placed


class UnitTables:
    """The units of several datasets' rows, one dataset after the other."""

    def __init__(self, tables: Sequence[UnitTable]):
        self._tables = list(tables)
        self._firsts = np.cumsum([0, *(len(table.starts) - 1 for table in tables)])

    def counts(self, rows: np.ndarray) -> np.ndarray:
        """How many units rows have, (rows,) int64."""
        counts = np.zeros(len(rows), dtype=np.int64)
        for table, first, end in zip(self._tables, self._firsts[:-1], self._firsts[1:], strict=True):
            here = np.flatnonzero((rows >= first) & (rows < end))
            counts[here] = table.starts[rows[here] - first + 1] - table.starts[rows[here] - first]
        return counts

    def take(self, rows: np.ndarray) -> UnitTable:
        """The units of some rows, (rows,) int64 of which may repeat."""
        counts = self.counts(rows)
        starts = np.concatenate([[0], np.cumsum(counts)])
        text, speech = (np.empty(int(starts[-1]), dtype=np.int32) for _ in range(2))
        for table, first, end in zip(self._tables, self._firsts[:-1], self._firsts[1:], strict=True):
            here = np.flatnonzero((rows >= first) & (rows < end))
            places = _ranges(table.starts[rows[here] - first], counts[here])
            targets = _ranges(starts[here], counts[here])
            text[targets], speech[targets] = table.text[places], table.speech[places]
        return UnitTable(starts, text, speech)


def _ranges(firsts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The numbers from each first on, as many as counted, one after the other."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(firsts - (ends - counts), counts)


@dataclass(frozen=True)
class TextsNeeded:
    """What has to be found out about texts, which takes time for each."""

    text: bool  # how many tokens
    words: bool  # how many units of timed words
    frames: bool  # the frames of each word


@dataclass(frozen=True)
class TextSizes:
    """What takes time to find out about a token dataset's rows: their texts have to be read."""

    text: np.ndarray  # (rows,) int32, text tokens
    units: np.ndarray  # (rows,) int32, units of timed words
    placed: UnitTable


@dataclass(frozen=True)
class Source:
    """A dataset in a mixture: of speech tokens, or of text alone.

    Attributes:
        weight: its share of the mixture's tokens, relative to the other sources' weights. Without weights
            every row of every source comes once an epoch.
        voice: the voice of rows that have no speaker.
        max_epochs: how often its rows may come over all the tokens that `Documents` is told of.
        rows_per_epoch: rows of it in an epoch, whatever the weights.
        sizes: what `read_sizes` has found out about it, if it has.
    """

    dataset: TokenRows | TextRows
    weight: float | None = None
    voice: str | None = None
    max_epochs: float | None = None
    rows_per_epoch: float | None = None
    sizes: TextSizes | None = None


@dataclass(frozen=True)
class RowTable:
    """The rows of all sources, one after the other; all arrays are (rows,) unless they say otherwise."""

    source_starts: np.ndarray  # (sources + 1,) int64, where each source's rows begin
    speech: np.ndarray  # int32, speech tokens (of the quantizers that have tokens)
    text: np.ndarray  # int32, text tokens; 0 for no text
    continues: np.ndarray  # bool, whether the text goes on in the next row
    units: np.ndarray  # int32, units of timed words; 0 where words are missing or do not match the text
    voice: np.ndarray  # int32, number of the voice, or -1
    voice_names: list[str]  # by number
    placed: UnitTables | None = None  # words and their frames, where a format asks for them

    def __len__(self) -> int:
        return len(self.speech)


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
