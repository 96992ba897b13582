"""Which frames of an utterance belong to which words of its text.

Two document formats use it. `interleaved` takes the frames of words of known time. `aligned` cuts text and speech
together where such words begin (`cut_points`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, islice, pairwise

import numpy as np

TimedWord = tuple[str, float | None, float | None]  # word, start and end in seconds; None: not known

_UNSPOKEN = re.compile(r"(?:[^\w\n]|_)+")


@dataclass(frozen=True)
class TimedWords:
    """The timed words of many rows, row after row; all are (words,) but `starts`."""

    starts: np.ndarray  # (rows + 1,) int64, where each row's words begin
    word: list[str]
    start: np.ndarray  # float, seconds; not finite where not known
    end: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Sequence[TimedWord] | None]) -> "TimedWords":
        """From the words of each row; None for a row without."""
        words = [word for row in rows for word in row or ()]
        starts = np.array([0, *accumulate(len(row or ()) for row in rows)])
        start, end = (np.array([word[n] for word in words], dtype=float) for n in (1, 2))  # None becomes NaN
        return cls(starts, [word for word, _, _ in words], start, end)


@dataclass(frozen=True)
class WordFrames:
    """The pieces (`split_words`) of texts in groups, called units, and the frames of each, row after row.

    A unit is a word, or several that cannot be told apart: pieces that meet inside a timed word, a piece with nothing
    to speak (it goes with the one before), words that begin in the same frame. Frames of different units do not overlap
    and come in the units' order. A unit of unknown time has no frames (`begin == end`). All arrays are (units,) but
    `starts`.
    """

    starts: (
        np.ndarray
    )  # (rows + 1,) int64, where each row's units begin; a row none of whose words is placed has none
    first_piece: np.ndarray  # int64, of the row; the first is 0: together a row's units are its whole text
    begin: np.ndarray  # int64, the first frame
    end: np.ndarray  # int64, the frame after the last
    timed: np.ndarray  # bool, whether it is known when the unit begins

    def __len__(self) -> int:
        return len(self.first_piece)

    @property
    def placed(self) -> np.ndarray:
        """(units,) bool, which units have frames."""
        return self.end > self.begin

    @property
    def rows(self) -> np.ndarray:
        """(units,) int64, the row of each."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


@dataclass(frozen=True)
class CutPoints:
    """Where texts and their speech can be cut together, row after row; all arrays are (stretches,) but `starts`.

    Each stretch has a frame at least, and every frame of a row that has stretches is in one. Its first piece and frame
    are 0.
    """

    starts: np.ndarray  # (rows + 1,) int64, where each row's stretches begin
    piece: np.ndarray  # int64, the first piece of each stretch
    frame: np.ndarray  # int64, its first frame

    def __len__(self) -> int:
        return len(self.piece)


def assign_frames(
    text: str, words: Sequence[TimedWord] | None, frames: int, frame_rate: float
) -> WordFrames | None:
    """`assign_frames_of_rows` for one row; None if no word gets any frames."""
    units = assign_frames_of_rows([text], TimedWords.of([words]), np.array([frames]), frame_rate)
    return units if len(units) else None


def assign_frames_of_rows(
    texts: Sequence[str], words: TimedWords, frames: np.ndarray, frame_rate: float
) -> WordFrames:
    """Give the frames of utterances to the words of their texts.

    Text and words must spell the same. Only letters and digits count, in any case: `"Well-known,"` matches the words
    WELL and KNOWN. Times that are None or not finite are unknown. A unit with a word of unknown time has no frames, and
    no other unit gets them.

    A pause goes with the word before it, up to the frame nearest to where the next word begins. Silence before the
    first word goes with that word, silence after the last with the last. Before a word of unknown time, a word ends
    where its own time does.

    Frame t covers the seconds [t, t + 1) / frame_rate.

    Args:
        texts: (rows,)
        words: of the same rows.
        frames: (rows,) int64, how many each has.
    """
    rows, first_piece, starts, ends = _match(texts, words, frames)
    if not len(rows):
        none = np.zeros(0, dtype=np.int64)
        return WordFrames(np.zeros(len(texts) + 1, dtype=np.int64), none, none, none, none > 0)
    limit = frames[rows]
    is_first = _first_of(rows)
    is_last = _next(is_first, True)
    known = np.isfinite(starts)
    # Frames of all rows in one line, a row's behind those of the row before: so running maxima stay within a row.
    origin = ((frames + 1).cumsum() - (frames + 1))[rows]
    stop_of_row = origin + limit
    begin, stop = stop_of_row.copy(), origin.copy()
    base, most = origin[known], limit[known]
    begin[known] = np.maximum.accumulate(base + _nearest(starts[known], most, frame_rate))
    stop[known] = base + _nearest(ends[known], most, frame_rate)
    # Units that begin in one frame are one; a last one without a frame goes with the one before it.
    goes_on = ~is_first
    goes_on[1:] &= known[1:] & known[:-1]
    goes_on[1:] &= (begin[1:] == begin[:-1]) | (is_last & (begin == stop_of_row))[1:]
    begin = np.where(is_first & known, origin, begin)
    next_begin = np.where(is_last, stop_of_row, _next(begin, 0))
    following = np.minimum.accumulate(next_begin[::-1])[::-1]  # where the next word of known time begins
    next_known = _next(known, True) | is_last  # after the last word comes the end, which is known
    end = np.where(next_known, next_begin, np.minimum(np.maximum(stop, begin), following))
    end = np.where(known, end, begin)

    firsts = np.flatnonzero(~goes_on)
    lasts = _next(firsts, len(known)) - 1
    rows, origin = rows[firsts], origin[firsts]
    begin, end = begin[firsts] - origin, end[lasts] - origin
    first_piece, timed = first_piece[firsts], known[firsts]
    counts = np.bincount(rows[end > begin], minlength=len(texts))
    if not counts.all():
        kept = counts[rows] > 0
        rows, begin, end = rows[kept], begin[kept], end[kept]
        first_piece, timed = first_piece[kept], timed[kept]
    return WordFrames(_starts(rows, len(texts)), first_piece, begin, end, timed)


def cut_points(units: WordFrames, frames: int | np.ndarray) -> CutPoints:
    """Where text and speech can be cut together: before each unit whose begin is known.

    A unit of unknown time stays with the one before it, because it is only known to come before the next known one.
    Units of unknown time at the beginning stay with the first known one, from frame 0 on. Units that begin in the same
    frame stay together.

    frames: (rows,) int64, how many each row has.
    """
    rows = units.rows
    limit = np.asarray(frames).reshape(-1)[rows]
    usable = np.flatnonzero(units.timed & (units.begin < limit))
    rows, begin = rows[usable], units.begin[usable]
    is_first = _first_of(rows)
    # Two words that begin in one frame may have a word of unknown time between them.
    kept = is_first.copy()
    kept[1:] |= begin[1:] > begin[:-1]
    rows, is_first = rows[kept], is_first[kept]
    piece, frame = (np.where(is_first, 0, column[kept]) for column in (units.first_piece[usable], begin))
    return CutPoints(_starts(rows, len(units.starts) - 1), piece, frame)


def _nearest(seconds: np.ndarray, frames: np.ndarray, frame_rate: float) -> np.ndarray:
    return np.rint(seconds * frame_rate).clip(0, frames).astype(np.int64)


def _first_of(rows: np.ndarray) -> np.ndarray:
    """Which are the first of their row, bool."""
    is_first = np.ones(len(rows), dtype=bool)
    np.not_equal(rows[1:], rows[:-1], out=is_first[1:])
    return is_first


def _next(values: np.ndarray, last: int) -> np.ndarray:
    """Each value's next one, and `last` after the last."""
    following = np.empty_like(values)
    following[:-1], following[-1:] = values[1:], last
    return following


def _starts(rows: np.ndarray, count: int) -> np.ndarray:
    """Where each of `count` rows begins, (count + 1,) int64."""
    return np.searchsorted(rows, np.arange(count + 1))


def _match(
    texts: Sequence[str], words: TimedWords, frames: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Row, first piece, start and end (NaN: unknown) of each unit, row after row.

    A row has none where its text and words do not spell the same, and where it has no frames.
    """
    split = [text.split() for text in texts]  # as many as `split_words` gives
    pieces, spoken = iter(spell(list(chain.from_iterable(split)))), spell(words.word)
    rows, first_piece, first_word = [], [], []
    lettered: list[int] = []  # the numbers of words with letters
    for row, (first, end) in enumerate(pairwise(words.starts.tolist())):
        own, said = list(islice(pieces, len(split[row]))), spoken[first:end]
        if not frames[row] or "".join(own) != "".join(said):
            continue
        begins = {}  # by the letters before a word
        position = 0
        for number, letters in enumerate(said, first):
            if letters:
                begins[position] = len(lettered)
                lettered.append(number)
                position += len(letters)
        position = 0
        for index, letters in enumerate(own):
            if letters:
                if position in begins:
                    rows.append(row)
                    first_piece.append(index if position else 0)
                    first_word.append(begins[position])
                position += len(letters)
    if not rows:
        none = np.zeros(0, dtype=np.int64)
        return none, none, none, none
    firsts = np.array(first_word)
    starts, ends = words.start[lettered], words.end[lettered]
    unknown = np.logical_or.reduceat(~(np.isfinite(starts) & np.isfinite(ends)), firsts)
    starts, ends = starts[firsts], ends[_next(firsts, len(lettered)) - 1]
    starts[unknown] = ends[unknown] = np.nan
    return np.array(rows), np.array(first_piece), starts, ends


def spell(words: Sequence[str]) -> list[str]:
    """What is spoken of each word, in one pass over them all."""
    joined = "\n".join(words)
    if joined.count("\n") >= len(words):
        joined = "\n".join(word.replace("\n", " ") for word in words)
    return _UNSPOKEN.sub("", joined.casefold()).split("\n") if words else []
