"""The rows that documents are made of, and what is known of each before any document is built: sizes and voices."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import numpy as np

from codec import CodecInfo
from slm.array_cache import cache_root, load_or_make, write_arrays
from slm.documents.word_frames import (
    TimedWord,
    TimedWords,
    WordFrames,
    assign_frames_of_rows,
    cut_points,
)
from slm.vocabulary import Vocabulary, WordTokens

_VERSION = 2  # of what the cache holds
_LARGE = 50_000  # rows: fewer are read in seconds
_CHUNK = 8192  # texts at a time
_WINDOWS_KEPT = 16


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
    def language(self, index: int, /) -> str | None: ...
    def words(self, index: int, /) -> Sequence[TimedWord] | None: ...


class TextRows:
    """Texts as one array of token ids, without speech. A text longer than a document may be becomes several rows.

    Attributes:
        name: for errors.
        content_hash: 16 hex digits that name the tokens.
        lengths: (rows,) int64, text tokens of each row.
        continues: (rows,) bool, whether the text goes on in the next row.
    """

    def __init__(
        self, name: str, ids: np.ndarray, offsets: np.ndarray, content_hash: str, longest: int | None = None
    ) -> None:
        """Args:
        ids: (tokens,) unsigned integers, text after text; may be mapped from a file.
        offsets: (texts + 1,) int64, where each text begins.
        longest: most text tokens in a row; a longer text is cut into rows of this length and a rest.
        """
        self.name, self.content_hash = name, content_hash
        self._ids = ids
        sizes = np.diff(offsets)
        if longest is None or not len(sizes) or int(sizes.max()) <= longest:
            self._starts = np.asarray(offsets[:-1])
            self.lengths: np.ndarray = sizes.astype(np.int64)
            self.continues: np.ndarray = np.zeros(len(sizes), dtype=bool)
            return
        counts = np.maximum(-(-sizes // longest), 1)
        lasts = np.cumsum(counts) - 1
        part = np.arange(int(counts.sum())) - np.repeat(lasts + 1 - counts, counts)
        self._starts = np.repeat(offsets[:-1], counts) + part * longest
        self.lengths = np.minimum(np.repeat(offsets[1:], counts) - self._starts, longest)
        self.continues = np.ones(len(part), dtype=bool)
        self.continues[lasts] = False

    def __len__(self) -> int:
        return len(self.lengths)

    def ids(self, index: int) -> np.ndarray:
        """Token ids of a row, (tokens,) int32."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has rows 0 to {len(self) - 1}, not {index}")
        start = int(self._starts[index])
        return self._ids[start : start + int(self.lengths[index])].astype(np.int32)


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
    """What documents need to know of texts. Each takes time to find out."""

    text: bool  # how many tokens
    words: bool  # where text and speech can be cut together
    frames: bool  # the frames of each word


@dataclass(frozen=True)
class TextSizes:
    """What is found out about a token dataset by reading its texts."""

    text: np.ndarray  # (rows,) int32, text tokens
    stretches: np.ndarray  # (rows,) int32, of text and speech that can be cut together (`cut_points`)
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
    stretches: np.ndarray  # int32, see `TextSizes`; 0 where words are missing or do not match the text
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


def measure(
    sources: Sequence[Source], vocabulary: Vocabulary, needed: TextsNeeded, with_voices: bool
) -> RowTable:
    """Reads sizes of all rows, and what is asked for of texts and voices."""
    starts = list(accumulate((len(source.dataset) for source in sources), initial=0))
    speech, text, stretches = (np.zeros(starts[-1], dtype=np.int32) for _ in range(3))
    continues = np.zeros(starts[-1], dtype=bool)
    voice = np.full(starts[-1], -1, dtype=np.int32)
    voice_names: list[str] = []
    placed: list[UnitTable] = []
    for source, start, end in zip(sources, starts[:-1], starts[1:], strict=True):
        dataset = source.dataset
        if isinstance(dataset, TextRows):
            text[start:end], continues[start:end] = dataset.lengths, dataset.continues
            placed.append(_no_units(end - start))
            continue
        frames = np.asarray(dataset.lengths) // dataset.info.num_quantizers
        speech[start:end] = frames * vocabulary.num_quantizers
        if with_voices:
            # The speakers of two datasets are two, even if they are called the same.
            numbers, names = speaker_numbers(dataset, source.voice)
            voice[start:end] = np.where(numbers >= 0, numbers + len(voice_names), -1)
            voice_names += names
        sizes = source.sizes or read_sizes(dataset, vocabulary, needed)
        text[start:end], stretches[start:end] = sizes.text, sizes.stretches
        placed.append(sizes.placed)
    tables = UnitTables(placed) if needed.frames else None
    return RowTable(np.array(starts), speech, text, continues, stretches, voice, voice_names, tables)


def speaker_numbers(dataset: TokenRows, default: str | None) -> tuple[np.ndarray, list[str]]:
    """Number of each row's speaker, (rows,) int32, -1 for none; and the names by number.

    `default` is the speaker of rows that name none.
    """
    if hasattr(dataset, "speaker_numbers"):  # millions of rows in a second
        numbers, names = dataset.speaker_numbers()
    else:
        by_name: dict[str, int] = {}
        speakers = (dataset.speaker(row) for row in range(len(dataset)))
        found = [by_name.setdefault(name, len(by_name)) if name else -1 for name in speakers]
        numbers, names = np.array(found, dtype=np.int32), list(by_name)
    if "" in names:
        numbers = np.where(numbers == names.index(""), np.int32(-1), numbers)
    if default and (numbers < 0).any():
        if default not in names:
            names = [*names, default]
        numbers = np.where(numbers < 0, np.int32(names.index(default)), numbers)
    return numbers, names


def read_sizes(
    dataset: TokenRows, vocabulary: Vocabulary, needed: TextsNeeded, shards: Sequence[int] | None = None
) -> TextSizes:
    """Counts the tokens of every text, and matches its words, as far as needed.

    The sizes of a large dataset with a hash of its content are read once for all processes of a machine, and kept in
    the cache.

    shards: of a streamed split, those that the dataset holds; sizes of few of them are kept.
    """
    content = getattr(dataset, "content_hash", None)
    if content is None or not needed.text or len(dataset) < _LARGE:
        return _read(dataset, vocabulary, needed)
    facts = [_VERSION, content, getattr(dataset, "split", ""), len(dataset), vocabulary.text_hash]
    facts += [vocabulary.num_quantizers, needed.words, needed.frames]
    if shards is not None:
        facts.append(list(shards))
    key = blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()
    path = cache_root() / ("sizes" if shards is None else "sizes-of-shards") / key

    def make(directory: Path) -> dict[str, str]:
        sizes = _read(dataset, vocabulary, needed)
        placed = {f"placed_{name}": getattr(sizes.placed, name) for name in ("starts", "text", "speech")}
        write_arrays(directory, {"text": sizes.text, "stretches": sizes.stretches} | placed)
        return {"dataset": dataset.name}

    arrays = load_or_make(path, make, kept=None if shards is None else _WINDOWS_KEPT).arrays
    placed = UnitTable(arrays["placed_starts"], arrays["placed_text"], arrays["placed_speech"])
    return TextSizes(arrays["text"], arrays["stretches"], placed)


def _read(dataset: TokenRows, vocabulary: Vocabulary, needed: TextsNeeded) -> TextSizes:
    rows = len(dataset)
    text, stretches = np.zeros(rows, dtype=np.int32), np.zeros(rows, dtype=np.int32)
    if not needed.text:
        return TextSizes(text, stretches, _no_units(rows))
    frames = np.asarray(dataset.lengths) // dataset.info.num_quantizers
    parts: list[UnitTable] = []
    for first in range(0, rows, _CHUNK):
        chunk = slice(first, min(first + _CHUNK, rows))
        texts, words = _texts_and_words(dataset, chunk, needed.words or needed.frames)
        tokens = vocabulary.encode_texts_and_words(texts) if needed.frames else None
        text[chunk] = vocabulary.count_text(texts) if tokens is None else np.diff(tokens.starts)
        if words is None:
            continue
        units = assign_frames_of_rows(texts, words, frames[chunk], dataset.info.frame_rate)
        if needed.words:
            stretches[chunk] = np.diff(cut_points(units, frames[chunk]).starts)
        if tokens is not None:
            parts.append(_unit_table(units, tokens, vocabulary.num_quantizers))
    return TextSizes(text, stretches, _join(parts) if parts else _no_units(rows))


def _texts_and_words(
    dataset: TokenRows, chunk: slice, with_words: bool
) -> tuple[list[str], TimedWords | None]:
    if hasattr(dataset, "column") and hasattr(dataset, "word_columns"):  # ten times as fast as row by row
        texts, words = dataset.column("text", chunk), None
        if with_words:
            counts, *columns = dataset.word_columns(chunk)
            words = TimedWords(np.append(0, np.cumsum(counts)), *columns)
    else:
        rows = range(chunk.start, chunk.stop)
        texts = [dataset.text(row) for row in rows]
        words = TimedWords.of([dataset.words(row) for row in rows]) if with_words else None
    return [text or "" for text in texts], words


def _unit_table(units: WordFrames, tokens: WordTokens, num_quantizers: int) -> UnitTable:
    rows = units.rows
    first_tokens = tokens.piece[tokens.piece_starts[rows] + units.first_piece]
    last_of_row = np.append(np.diff(rows) > 0, True)[: len(rows)]
    following = np.append(first_tokens[1:], 0)[: len(rows)]
    text = np.where(last_of_row, tokens.starts[rows + 1], following) - first_tokens
    speech = (units.end - units.begin) * num_quantizers
    return UnitTable(units.starts, text.astype(np.int32), speech.astype(np.int32))


def _no_units(rows: int) -> UnitTable:
    none = np.zeros(0, dtype=np.int32)
    return UnitTable(np.zeros(rows + 1, dtype=np.int64), none, none)


def _join(tables: Sequence[UnitTable]) -> UnitTable:
    """Tables of one set of rows after another."""
    before = np.cumsum([0, *(table.starts[-1] for table in tables)])
    starts = [table.starts[:-1] + offset for table, offset in zip(tables, before[:-1], strict=True)]
    return UnitTable(
        np.concatenate([*starts, before[-1:]]),
        np.concatenate([table.text for table in tables]),
        np.concatenate([table.speech for table in tables]),
    )
