"""What is said in a segment of an utterance: its characters, and the stretch in which exactly they are said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data.corpora import Utterance, Word


@dataclass(frozen=True)
class SegmentLabels:
    """Characters of a segment."""

    characters: np.ndarray  # (characters,) int64 numbers in the alphabet; empty where nothing is known
    start: int  # first sample of the stretch, from the segment's beginning
    end: int


class Labeller:
    """Finds what is said in segments of utterances whose words have times, or which are whole.

    utterances: with texts, and with word times where there are some.
    alphabet: the characters that count; see `alphabet_of`.
    """

    def __init__(self, utterances: Sequence[Utterance], sampling_rate: int, alphabet: str) -> None:
        self._utterances: Mapping[str, Utterance] = {utterance.id: utterance for utterance in utterances}
        self._rate = sampling_rate
        self._numbers = {character: number for number, character in enumerate(alphabet)}

    def label(self, identity: str, start: int, length: int, total: int) -> SegmentLabels:
        """Label samples [start, start + length) of an utterance of `total` samples.

        Of timed words, those that lie inside count; the stretch reaches from the end of the last word before them, or
        the segment's beginning, to the beginning of the first behind. Where one of them could not be placed, nothing is
        known. Without times a segment has labels if it is the whole utterance.
        """
        utterance = self._utterances[identity]
        if utterance.words is not None:
            return self._of_words(utterance.words, start, length)
        if utterance.text is not None and start == 0 and length >= total:
            return SegmentLabels(self._encode(utterance.text), 0, length)
        return _nothing()

    def _of_words(self, words: Sequence[Word], start: int, length: int) -> SegmentLabels:
        begins = [None if word.start is None else round(word.start * self._rate) - start for word in words]
        ends = [None if word.end is None else round(word.end * self._rate) - start for word in words]
        inside = [
            number
            for number, (begin, end) in enumerate(zip(begins, ends, strict=True))
            if begin is not None and end is not None and begin >= 0 and end <= length
        ]
        if not inside:
            return _nothing()
        first, last = inside[0], inside[-1]
        # words that could not be placed are among these, or at an edge where they may be said inside the stretch
        around = words[max(0, first - 1) : last + 2]
        if len(inside) != last - first + 1 or not all(word.placed for word in around):
            return _nothing()
        before = ends[first - 1] if first else 0
        behind = begins[last + 1] if last + 1 < len(words) else length
        assert before is not None and behind is not None
        text = " ".join(word.word for word in words[first : last + 1])
        return SegmentLabels(self._encode(text), max(0, before), min(length, behind))

    def _encode(self, text: str) -> np.ndarray:
        spaced = " ".join(text.lower().split())
        return np.array([self._numbers[c] for c in spaced if c in self._numbers], dtype=np.int64)


def alphabet_of(utterances: Sequence[Utterance]) -> str:
    """The characters of the texts that are spoken, in order: letters in lower case, digits, apostrophe, space."""
    characters = {c for utterance in utterances for c in (utterance.text or "").lower()}
    return "".join(sorted({c for c in characters if c.isalnum() or c == "'"} | {" "}))


def _nothing() -> SegmentLabels:
    return SegmentLabels(np.zeros(0, dtype=np.int64), 0, 0)
