"""Rows of text and speech that are longer than a block, as several rows that fit.

Where a document is cut when it is packed, its text is torn from its speech. So a row whose words have times is cut
before, into rows of their own, where text and speech can be cut together (`cut_points`): before words of known time; a
pause stays with the word before it. There are as few parts as fit, and among these cuts the longest part is as short as
can be. A stretch between two such places that is longer than a block stays one part, and a row without word times stays
whole. What does not fit then loses its text (`Documents`), and is counted.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from slm.documents.config import DocumentConfig
from slm.documents.formats import FORMATS, texts_needed
from slm.documents.rows import (
    Source,
    TextRows,
    TextSizes,
    TokenRows,
    UnitTables,
    read_sizes,
    speaker_numbers,
)
from slm.documents.word_frames import TimedWord, assign_frames, cut_points, spell
from slm.vocabulary import Vocabulary, split_words

_MARKS = 4  # tokens of a `tts` document beside text and speech: three, and a voice tag


@dataclass(frozen=True)
class RowPart:
    """Some words of a row with their frames."""

    row: int
    begin: int  # the first frame
    end: int  # the frame after the last
    text: str
    words: list[TimedWord]  # times from the part's begin on


class RowParts:
    """Rows of a dataset, then parts of others as rows of their own: `slm.documents.rows.TokenRows`."""

    def __init__(self, dataset: TokenRows, whole: np.ndarray, parts: Sequence[RowPart]):
        """`whole`: (rows,) int64, the rows that stay as they are."""
        self.dataset, self.parts = dataset, parts
        self.name, self.info = dataset.name, dataset.info
        self.rows = np.concatenate([whole, [part.row for part in parts]]).astype(np.int64)
        self._whole = len(whole)
        frames = np.array([part.end - part.begin for part in parts], dtype=np.int64)
        lengths = np.asarray(dataset.lengths)[whole]
        self.lengths = np.concatenate([lengths, frames * self.info.num_quantizers])

    def __len__(self) -> int:
        return len(self.rows)

    def _place(self, index: int) -> tuple[int, RowPart | None]:
        """The row, and which part of it."""
        return int(self.rows[index]), self.parts[index - self._whole] if index >= self._whole else None

    def codes(self, index: int, /) -> np.ndarray:
        row, part = self._place(index)
        codes, size = self.dataset.codes(row), self.info.num_quantizers
        return codes if part is None else codes[part.begin * size : part.end * size]

    def text(self, index: int, /) -> str | None:
        row, part = self._place(index)
        return self.dataset.text(row) if part is None else part.text

    def words(self, index: int, /) -> Sequence[TimedWord] | None:
        row, part = self._place(index)
        return self.dataset.words(row) if part is None else part.words

    def speaker(self, index: int, /) -> str | None:
        return self.dataset.speaker(self._place(index)[0])

    def language(self, index: int, /) -> str | None:
        return self.dataset.language(self._place(index)[0])

    def speaker_numbers(self) -> tuple[np.ndarray, list[str]]:
        """As of a `TokenDataset`."""
        numbers, names = speaker_numbers(self.dataset, None)
        return numbers[self.rows], names


def fitting_rows(
    source: Source, vocabulary: Vocabulary, config: DocumentConfig, longest: int | None
) -> Source:
    """A source with its sizes read, and its long rows cut if there are documents of text and speech.

    longest: tokens of a block; None: there are no blocks.
    """
    dataset = source.dataset
    if isinstance(dataset, TextRows):
        return source
    needed = texts_needed(config)
    sizes = source.sizes or read_sizes(dataset, vocabulary, needed)
    source = replace(source, sizes=sizes)
    if longest is None or not any(FORMATS[name].paired for name, weight in config.formats.items() if weight):
        return source
    frames = np.asarray(dataset.lengths) // dataset.info.num_quantizers
    tokens = sizes.text + frames * vocabulary.num_quantizers
    long = np.flatnonzero((sizes.text > 0) & (frames > 0) & (tokens + _MARKS > longest)).tolist()
    parts = [
        part for row in long for part in cut_row(dataset, row, int(frames[row]), vocabulary, longest - _MARKS)
    ]
    if not parts:
        return source
    whole = np.setdiff1d(np.arange(len(dataset)), [part.row for part in parts])
    fresh = read_sizes(RowParts(dataset, whole[:0], parts), vocabulary, needed)
    order = np.concatenate([whole, len(dataset) + np.arange(len(parts))])
    joined = TextSizes(
        np.concatenate([sizes.text, fresh.text])[order],
        np.concatenate([sizes.stretches, fresh.stretches])[order],
        UnitTables([sizes.placed, fresh.placed]).take(order),
    )
    return replace(source, dataset=RowParts(dataset, whole, parts), sizes=joined)


def cut_row(dataset: TokenRows, row: int, frames: int, vocabulary: Vocabulary, limit: int) -> list[RowPart]:
    """Parts of a row, two or more, each of at most `limit` tokens of text and speech; none where it cannot be cut."""
    text, words = dataset.text(row) or "", dataset.words(row) or []
    rate = dataset.info.frame_rate
    units = assign_frames(text, words, frames, rate)
    if units is None:
        return []
    points, pieces = cut_points(units, frames), split_words(text)
    texts = ["".join(pieces[first:last]) for first, last in pairwise([*points.piece.tolist(), len(pieces)])]
    heads = [texts[0], *(part.lstrip() for part in texts[1:])]  # as the first of a part
    speech = np.diff(points.frame, append=frames) * vocabulary.num_quantizers
    cuts = cut_evenly(vocabulary.count_text(heads) + speech, vocabulary.count_text(texts) + speech, limit)
    if len(cuts) == 1:
        return []
    letters = np.cumsum([0, *map(len, spell(text.split()))])
    spoken = np.cumsum([0, *map(len, spell([word for word, _, _ in words]))])[:-1]
    firsts = [0, *np.searchsorted(spoken, letters[points.piece[cuts[1:]]]).tolist(), len(words)]
    parts = []
    for (first, last), (word, end_word) in zip(pairwise([*cuts, len(texts)]), pairwise(firsts), strict=True):
        begin, end = (int(points.frame[n]) if n < len(texts) else frames for n in (first, last))
        since = begin / rate
        moved = [(w, _after(since, start), _after(since, stop)) for w, start, stop in words[word:end_word]]
        parts.append(RowPart(row, begin, end, "".join([heads[first], *texts[first + 1 : last]]), moved))
    return parts


def _after(since: float, seconds: float | None) -> float | None:
    return None if seconds is None else seconds - since


def cut_evenly(heads: np.ndarray, sizes: np.ndarray, limit: int) -> list[int]:
    """The first stretch of each part: as few parts as fit, the longest of them as short as can be.

    A stretch longer than the limit is a part of its own.

    Args:
        heads: (stretches,) tokens of each stretch as the first of a part.
        sizes: (stretches,) tokens of each stretch after another.
        limit: most tokens of a part.
    """
    ends = np.cumsum(sizes)

    def fill(most: int) -> list[int]:
        cuts = [0]
        while True:
            first = cuts[-1]
            last = int(np.searchsorted(ends, most - heads[first] + ends[first], side="right"))
            if (last := max(last, first + 1)) >= len(sizes):
                return cuts
            cuts.append(last)

    fewest = len(fill(limit))
    return fill(bisect_left(range(limit), True, key=lambda most: len(fill(most)) <= fewest))
