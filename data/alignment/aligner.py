"""The interface of an aligner, and its result."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from codec.foundation import UserError
from data.corpora import Utterance, Word

_SPOKEN = re.compile(r"[^\W_]")


class AlignmentError(UserError):
    """Why one utterance cannot be aligned."""


@dataclass(frozen=True)
class Alignment:
    """The words of a transcript, `text.split()`; those that the aligner could place have times.

    Attributes:
        score: how well the audio fits the transcript; higher is better. Scores can be compared within one corpus and
            aligner. None where the aligner gives none.
    """

    words: tuple[Word, ...]
    score: float | None = None


class Aligner(Protocol):
    """Finds when the words of a transcript are spoken. It can be pickled before its first use."""

    @property
    def name(self) -> str:
        """Names the aligner, with all settings that change the times."""
        ...

    @property
    def sampling_rate(self) -> int: ...

    @property
    def in_processes(self) -> bool:
        """Whether worker processes align with copies of it. If not, this process aligns, and threads read ahead."""
        ...

    @property
    def rejects_low_scores(self) -> bool:
        """Whether a score far below those of the corpus means that the audio does not say its transcript."""
        ...

    def align(self, utterance: Utterance, blocks: Iterator[Tensor]) -> Alignment:
        """Times for an utterance with a text.

        `blocks` are those of the recording, (samples,) float32 at `sampling_rate`, read when asked for. Raises
        AlignmentError for a transcript that does not fit, AudioError for a recording that cannot be read.
        """
        ...


def is_spoken(word: str) -> bool:
    """Whether a word has a letter or a digit; a dash on its own has none."""
    return _SPOKEN.search(word) is not None
