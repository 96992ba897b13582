"""Sizes of all rows, read once: what lengths of documents are computed from."""

import json
from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path

import numpy as np

from slm.documents.alignment import match_words
from slm.documents.rows import (
    RowTable,
    Source,
    TextSizes,
    TextsNeeded,
    TokenRows,
    UnitTable,
    UnitTables,
)
from slm.documents.text_rows import TextRows
from slm.documents.word_frames import TimedWord, assign_frames
from slm.packing.array_cache import cache_root, load_or_make, write_arrays
from slm.vocabulary import Vocabulary

_VERSION = 1  # of what the cache holds
_LARGE = 50_000  # rows: fewer are read in seconds
_CHUNK = 8192  # texts at a time


def measure(
    sources: Sequence[Source], vocabulary: Vocabulary, needed: TextsNeeded, with_voices: bool
) -> RowTable:
    """Reads sizes of all rows, and what is asked for of texts and voices."""
    starts = list(accumulate((len(source.dataset) for source in sources), initial=0))
    speech, text, units = (np.zeros(starts[-1], dtype=np.int32) for _ in range(3))
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
        text[start:end], units[start:end] = sizes.text, sizes.units
        placed.append(sizes.placed)
    tables = UnitTables(placed) if needed.frames else None
    return RowTable(np.array(starts), speech, text, continues, units, voice, voice_names, tables)


def speaker_numbers(dataset: TokenRows, default: str | None) -> tuple[np.ndarray, list[str]]:
    """Number of each row's speaker, (rows,) int32, -1 for none; and the names by number.

    `default` is who speaks in rows that do not say.
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
    dataset: TokenRows, vocabulary: Vocabulary, needed: TextsNeeded, cached: bool = True
) -> TextSizes:
    """Counts the tokens of every text, and matches its words, as far as needed.

    Of a large dataset on the disk that is done once: what was found lies in the cache (unless not `cached`).
    """
    content = getattr(dataset, "content_hash", None)
    if content is None or not cached or not needed.text or len(dataset) < _LARGE:
        return _read(dataset, vocabulary, needed)
    facts = [_VERSION, content, getattr(dataset, "split", ""), len(dataset), vocabulary.text_hash]
    key = blake2b(
        json.dumps([*facts, vocabulary.num_quantizers, needed.words, needed.frames]).encode(), digest_size=16
    )
    path = cache_root() / "sizes" / key.hexdigest()

    def make(directory: Path) -> dict[str, str]:
        sizes = _read(dataset, vocabulary, needed)
        placed = {f"placed_{name}": getattr(sizes.placed, name) for name in ("starts", "text", "speech")}
        write_arrays(directory, {"text": sizes.text, "units": sizes.units} | placed)
        return {"dataset": dataset.name}

    arrays = load_or_make(path, make).arrays
    placed = UnitTable(arrays["placed_starts"], arrays["placed_text"], arrays["placed_speech"])
    return TextSizes(arrays["text"], arrays["units"], placed)


def _read(dataset: TokenRows, vocabulary: Vocabulary, needed: TextsNeeded) -> TextSizes:
    rows = len(dataset)
    text, units = np.zeros(rows, dtype=np.int32), np.zeros(rows, dtype=np.int32)
    if not needed.text:
        return TextSizes(text, units, _no_units(rows))
    frames = np.asarray(dataset.lengths) // dataset.info.num_quantizers
    parts: list[UnitTable] = []
    for first in range(0, rows, _CHUNK):
        chunk = range(first, min(first + _CHUNK, rows))
        texts = [dataset.text(row) or "" for row in chunk]
        text[first : chunk.stop] = vocabulary.count_text(texts)
        if not (needed.words or needed.frames):
            continue
        words = [dataset.words(row) for row in chunk]
        if needed.words:
            for row, row_text, row_words in zip(chunk, texts, words, strict=True):
                units[row] = _count_units(row_text, row_words, int(frames[row]))
        if needed.frames:
            counts = frames[first : chunk.stop].tolist()
            parts.append(_place(texts, words, counts, dataset.info.frame_rate, vocabulary))
    return TextSizes(text, units, _join(parts) if parts else _no_units(rows))


def _count_units(text: str, words: Sequence[TimedWord] | None, frames: int) -> int:
    timed = match_words(text, words) if text and words else None
    # Every span gets a frame at least, and a span may be a single unit.
    return len(timed.seconds) if timed is not None and len(timed.seconds) <= frames else 0


def _place(
    texts: Sequence[str],
    words: Sequence[Sequence[TimedWord] | None],
    frames: Sequence[int],
    frame_rate: float,
    vocabulary: Vocabulary,
) -> UnitTable:
    counts, tokens, sizes = [0], [], []
    for text, row_words, row_frames in zip(texts, words, frames, strict=True):
        units = assign_frames(text, row_words, row_frames, frame_rate)
        counts.append(0 if units is None else len(units))
        if units is not None:
            ids, piece_starts = vocabulary.encode_text_and_words(text)
            tokens.append(np.diff(piece_starts[units.first_piece], append=len(ids)))
            sizes.append((units.end - units.begin) * vocabulary.num_quantizers)
    none = [np.zeros(0, dtype=np.int64)]
    return UnitTable(
        np.cumsum(counts),
        np.concatenate(tokens or none).astype(np.int32),
        np.concatenate(sizes or none).astype(np.int32),
    )


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
