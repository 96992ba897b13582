"""Words with times, matched to the words of a text, and cut into spans of frames."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

_UNSPOKEN = re.compile(r"(?:[^\w\n]|_)+")


@dataclass(frozen=True)
class TimedPieces:
    """A text's pieces (`split_words`), grouped into units of which each has a time."""

    first_piece: (
        np.ndarray
    )  # (units,) int64, the first piece of each unit; the first unit begins with piece 0
    seconds: np.ndarray  # (units,) float64, when each unit's first word begins


def match_words(text: str, words: Sequence[tuple[str, float | None, float | None]]) -> TimedPieces | None:
    """Finds the pieces of a text in a list of timed words; None where they do not spell the same.

    Only letters and digits count, whatever their case: `"Well-known,"` matches the words WELL and KNOWN. A
    piece that begins inside a timed word, or that has nothing to speak, such as a dash, goes with the piece
    before it.

    So does a word without times: nothing is known but that it is spoken before the next placed word, so they share a
    unit and its frames, and no frame is paired with it by a guess. Such words at the beginning make one unit with the
    first placed word, from 0 s on.
    """
    pieces = spell(text.split())  # as many as `split_words` gives
    spoken = spell([word for word, _, _ in words])
    if len(spoken) != len(words) or "".join(pieces) != "".join(spoken):
        return None
    times: dict[int, float] = {}  # where a word begins in the letters -> when
    position = 0
    for word, (_, start, _) in zip(spoken, words, strict=True):
        if word and start is not None:
            times[position] = start
        position += len(word)
    first_piece: list[int] = []
    seconds: list[float] = []
    position = 0
    for index, piece in enumerate(pieces):
        if piece and position in times:
            # Letters before the first time belong to words without one: where those begin is not known.
            seconds.append(times[position] if first_piece or not position else 0.0)
            first_piece.append(index if first_piece else 0)
        position += len(piece)
    if not seconds or not all(map(isfinite, seconds)):
        return None
    return TimedPieces(np.array(first_piece), np.array(seconds, dtype=np.float64))


def cut_frames(seconds: np.ndarray, frames: int, frame_rate: float) -> np.ndarray:
    """Where to cut frames between spans: the frame nearest to the beginning of each span but the first.

    Frame t covers the seconds [t, t + 1) / frame_rate. The cuts increase and leave every span a frame at
    least. So leading silence goes with the first span, a pause with the span before it, and every frame
    with one span.

    Args:
        seconds: (spans,) when each span's first word begins; spans <= frames.

    Returns:
        (spans - 1,) int64, the first frame of each span but the first.
    """
    spans = len(seconds)
    earliest = np.arange(1, spans)
    cuts = np.rint(seconds[1:] * frame_rate).clip(0, frames).astype(np.int64)
    cuts = np.maximum.accumulate(np.maximum(cuts, earliest) - earliest) + earliest
    return np.minimum(cuts, frames - spans + earliest)


def spell(words: list[str]) -> list[str]:
    """What is spoken of each word, in one pass over them all."""
    return _UNSPOKEN.sub("", "\n".join(words).casefold()).split("\n") if words else []
