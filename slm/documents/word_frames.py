"""Which frames are whose: the frames of an utterance given to its words, each to one at most."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from slm.documents.alignment import spell

TimedWord = tuple[str, float | None, float | None]


@dataclass(frozen=True)
class WordFrames:
    """A text's pieces (`split_words`) grouped into units, and the frames of each; all arrays are (units,) int64.

    The frames of different units do not overlap and come in the units' order. A unit whose time is not known has
    none (`begin == end`).
    """

    first_piece: np.ndarray  # the first is 0: together the units are the whole text
    begin: np.ndarray  # the first frame
    end: np.ndarray  # the frame after the last

    def __len__(self) -> int:
        return len(self.first_piece)

    @property
    def placed(self) -> np.ndarray:
        """(units,) bool, which units have frames."""
        return self.end > self.begin


def assign_frames(
    text: str, words: Sequence[TimedWord] | None, frames: int, frame_rate: float
) -> WordFrames | None:
    """Gives the frames of an utterance to the words of its text; None if not a single word gets any.

    A unit is a word, or several that cannot be told apart: pieces that meet inside a timed word, a piece with nothing
    to speak (it goes with the one before), words that begin in the same frame. Times that are None or not finite are
    unknown, and so is the time of a unit of which they are a part: it has no frames, and nobody else has its.

    Silence has a home: a pause goes with the word before it, up to the frame nearest to where the next word begins;
    what precedes the first word goes with that, what follows the last with the last. Next to a word of unknown time
    nothing is known of a pause: there a word ends where its own time does.

    Frame t covers the seconds [t, t + 1) / frame_rate.
    """
    units = _match(text, words) if words else None
    if units is None or frames < 1:
        return None
    first_piece, starts, ends = units
    known = np.isfinite(starts) & np.isfinite(ends)
    if not known.any():
        return None
    begin = np.full(len(starts), frames, dtype=np.int64)
    stop = np.zeros(len(starts), dtype=np.int64)
    begin[known] = np.maximum.accumulate(_nearest(starts[known], frames, frame_rate))
    stop[known] = _nearest(ends[known], frames, frame_rate)
    together = known[1:] & known[:-1] & (begin[1:] == begin[:-1])
    if known[0]:
        begin[0] = 0
    next_known = np.append(known[1:], True)  # after the last word comes the end, which is known
    next_begin = np.append(begin[1:], frames)
    following = np.minimum.accumulate(next_begin[::-1])[::-1]  # where the next word of known time begins
    end = np.where(next_known, next_begin, np.minimum(np.maximum(stop, begin), following))
    end = np.where(known, end, begin)

    # Units that begin in one frame are one; a last one without a frame goes with the one before it.
    is_first = np.ones(len(known), dtype=bool)
    is_first[1:] = ~together
    if len(known) > 1 and known[-1] and known[-2] and begin[-1] == frames:
        is_first[-1] = False
    firsts = np.flatnonzero(is_first)
    lasts = np.append(firsts[1:], len(known)) - 1
    assigned = WordFrames(first_piece[firsts], begin[firsts], end[lasts])
    return assigned if assigned.placed.any() else None


def _nearest(seconds: np.ndarray, frames: int, frame_rate: float) -> np.ndarray:
    return np.rint(seconds * frame_rate).clip(0, frames).astype(np.int64)


def _match(text: str, words: Sequence[TimedWord]) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """First piece, start and end (NaN: unknown) of each unit; None where text and words do not spell the same."""
    pieces = spell(text.split())
    spoken = spell([word for word, _, _ in words])
    if len(spoken) != len(words) or "".join(pieces) != "".join(spoken):
        return None
    positions: list[int] = []  # where each word begins in the letters
    times: list[tuple[float, float]] = []
    position = 0
    for letters, (_, start, end) in zip(spoken, words, strict=True):
        if letters:
            positions.append(position)
            times.append(_known(start, end))
            position += len(letters)
    begins = {place: number for number, place in enumerate(positions)}
    first_piece: list[int] = []
    first_word: list[int] = []
    position = 0
    for index, piece in enumerate(pieces):
        if piece and position in begins:
            first_piece.append(index if first_piece else 0)
            first_word.append(begins[position])
        position += len(piece)
    if not first_piece:
        return None
    starts, ends = np.array(times).T
    bounds = [*first_word, len(times)]
    unknown = np.add.reduceat(np.isnan(starts), first_word) > 0
    first, last = np.array(bounds[:-1]), np.array(bounds[1:]) - 1
    nan = np.float64("nan")
    return np.array(first_piece), np.where(unknown, nan, starts[first]), np.where(unknown, nan, ends[last])


def _known(start: float | None, end: float | None) -> tuple[float, float]:
    if start is None or end is None or not isfinite(start) or not isfinite(end):
        return float("nan"), float("nan")
    return start, end
