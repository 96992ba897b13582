"""What every aligner does, and what comes out."""

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
    """The words of one utterance's transcript, `text.split()`, with the times of those that could be placed.

    Attributes:
        score: how well the audio fits the transcript, higher is better, comparable only within one corpus and
            aligner; None where the aligner does not say.
    """

    words: tuple[Word, ...]
    score: float | None = None


class Aligner(Protocol):
    """Finds the words of a transcript in its recording; picklable until it is first used."""

    @property
    def name(self) -> str:
        """With all that decides its times."""
        ...

    @property
    def sampling_rate(self) -> int: ...

    @property
    def in_processes(self) -> bool:
        """Whether copies work in processes of their own; otherwise one works here, and threads read ahead."""
        ...

    @property
    def rejects_low_scores(self) -> bool:
        """Whether an utterance is not what its transcript says when its score falls out of the corpus."""
        ...

    def align(self, utterance: Utterance, blocks: Iterator[Tensor]) -> Alignment:
        """Times for an utterance with a text.

        `blocks` is the recording in (samples,) float32 at `sampling_rate`, read as they are asked for. Raises
        AlignmentError for a transcript that does not fit, AudioError for a recording that cannot be read.
        """
        ...


def is_spoken(word: str) -> bool:
    """Whether a word has a letter or a digit; a dash on its own has none."""
    return _SPOKEN.search(word) is not None
