"""Which frames of an utterance belong to which words of its text.

Two document formats use it. `interleaved` takes the frames of words of known time. `aligned` cuts text and speech
together where such words begin (`cut_points`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan

import numpy as np

TimedWord = tuple[str, float | None, float | None]  # word, start and end in seconds; None: not known

_UNSPOKEN = re.compile(r"(?:[^\w\n]|_)+")


@dataclass(frozen=True)
class WordFrames:
    """A text's pieces (`split_words`) in groups, called units, and the frames of each; all arrays are (units,).

    A unit is a word, or several that cannot be told apart: pieces that meet inside a timed word, a piece with nothing
    to speak (it goes with the one before), words that begin in the same frame. Frames of different units do not overlap
    and come in the units' order. A unit of unknown time has no frames (`begin == end`).
    """

    first_piece: np.ndarray  # int64; the first is 0: together the units are the whole text
    begin: np.ndarray  # int64, the first frame
    end: np.ndarray  # int64, the frame after the last
    timed: np.ndarray  # bool, whether it is known when the unit begins

    def __len__(self) -> int:
        return len(self.first_piece)

    @property
    def placed(self) -> np.ndarray:
        """(units,) bool, which units have frames."""
        return self.end > self.begin


@dataclass(frozen=True)
class CutPoints:
    """Where a text and its speech can be cut together; both arrays are (stretches,) int64.

    Each stretch has a frame at least, and every frame is in one stretch. Both arrays begin with 0.
    """

    piece: np.ndarray  # the first piece of each stretch
    frame: np.ndarray  # its first frame

    def __len__(self) -> int:
        return len(self.piece)


def assign_frames(
    text: str, words: Sequence[TimedWord] | None, frames: int, frame_rate: float
) -> WordFrames | None:
    """Give the frames of an utterance to the words of its text; None if no word gets any.

    Text and words must spell the same. Only letters and digits count, in any case: `"Well-known,"` matches the words
    WELL and KNOWN. Times that are None or not finite are unknown. A unit with a word of unknown time has no frames, and
    no other unit gets them.

    A pause goes with the word before it, up to the frame nearest to where the next word begins. Silence before the
    first word goes with that word, silence after the last with the last. Before a word of unknown time, a word ends
    where its own time does.

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
    assigned = WordFrames(first_piece[firsts], begin[firsts], end[lasts], known[firsts])
    return assigned if assigned.placed.any() else None


def cut_points(units: WordFrames, frames: int) -> CutPoints:
    """Where text and speech can be cut together: before each unit whose begin is known.

    A unit of unknown time stays with the one before it, because it is only known to come before the next known one.
    Units of unknown time at the beginning stay with the first known one, from frame 0 on. Units that begin in the same
    frame stay together.
    """
    usable = np.flatnonzero(units.timed & (units.begin < frames))
    # Two words that begin in one frame may have a word of unknown time between them.
    usable = usable[np.append(True, np.diff(units.begin[usable]) > 0)]
    piece, frame = units.first_piece[usable], units.begin[usable]
    piece[0] = frame[0] = 0
    return CutPoints(piece, frame)


def _nearest(seconds: np.ndarray, frames: int, frame_rate: float) -> np.ndarray:
    return np.rint(seconds * frame_rate).clip(0, frames).astype(np.int64)


def _match(text: str, words: Sequence[TimedWord]) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """First piece, start and end (NaN: unknown) of each unit; None where text and words do not spell the same."""
    pieces = spell(text.split())  # as many as `split_words` gives
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
    return np.array(first_piece), np.where(unknown, nan, starts[first]), np.where(unknown, nan, ends[last])


def _known(start: float | None, end: float | None) -> tuple[float, float]:
    if start is None or end is None or not isfinite(start) or not isfinite(end):
        return nan, nan
    return start, end


def spell(words: list[str]) -> list[str]:
    """What is spoken of each word, in one pass over them all."""
    return _UNSPOKEN.sub("", "\n".join(words).casefold()).split("\n") if words else []
