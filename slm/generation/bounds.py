"""How long speech may be for its text, and how a text is cut into spans."""

from dataclasses import dataclass

import numpy as np

from codec.foundation import UserError
from slm.generation.grammar import Span
from slm.models.checkpoint import SpeakingHabits
from slm.text.words import split_words
from slm.vocabulary import Vocabulary

# Of English; where a checkpoint knows its own speakers, theirs are taken.
_SECONDS_PER_CHARACTER = (0.045, 0.065, 0.1)


@dataclass(frozen=True)
class SpeechBounds:
    """Limits on generated speech."""

    fastest: float = 0.6
    """Speech for n characters may end after `fastest` x n times what the model's fastest speakers take."""
    slowest: float = 1.5
    """It has to end after `slowest` x n times what the slowest take, plus `pause_seconds` for each span."""
    pause_seconds: float = 1.0
    """Added to the longest duration of each span."""
    stuck_seconds: float = 2.0
    """Cut speech after this much of nothing but silence or a loop; 0: never."""
    passage_seconds: float = 12.0
    """Sentences are said together as long as they take no more than this at the model's usual pace: about
    as much as it has heard in one go. 0: as long as it can read."""

    def __post_init__(self) -> None:
        if not 0 <= self.fastest <= 1 <= self.slowest:
            raise UserError("bounds.fastest is from 0 to 1, bounds.slowest 1 or more")
        if min(self.pause_seconds, self.stuck_seconds, self.passage_seconds) < 0:
            raise UserError(
                "bounds.pause_seconds, bounds.stuck_seconds and bounds.passage_seconds must be 0 or more"
            )

    def span(
        self,
        characters: int,
        habits: SpeakingHabits,
        frame_rate: float,
        text_ids: np.ndarray | None = None,
        is_part: bool = False,
    ) -> Span:
        """The limits for a text of so many characters; a part of a sentence may be spoken faster than a whole one."""
        fast, _, slow = habits.seconds_per_character or _SECONDS_PER_CHARACTER
        least = self.fastest * (0.5 if is_part else 1.0) * fast * characters
        most = self.slowest * slow * characters + self.pause_seconds
        ids = np.zeros(0, dtype=np.int32) if text_ids is None else text_ids
        return Span(int(least * frame_rate), max(1, round(most * frame_rate)), ids)

    def stuck_frames(self, frame_rate: float) -> int:
        """Frames of nothing new that end a span."""
        return round(self.stuck_seconds * frame_rate)


@dataclass(frozen=True)
class TextSpan:
    """A few words of a text."""

    text: str
    ids: np.ndarray  # (tokens,) int32


def cut_text(text: str, vocabulary: Vocabulary, words_per_span: int) -> list[TextSpan]:
    """A text as spans of so many words, which join to it exactly; what nobody speaks stays with the word before it."""
    units: list[list[int]] = []
    pieces = split_words(text)
    for index, piece in enumerate(pieces):
        if not units or any(map(str.isalnum, piece)):
            # Leading marks wait for the first word.
            if len(units) == 1 and not any(str.isalnum(c) for i in units[0] for c in pieces[i]):
                units[0].append(index)
            else:
                units.append([index])
        else:
            units[-1].append(index)
    ids = vocabulary.encode_words(text)
    spans = []
    for start in range(0, len(units), words_per_span):
        members = [index for unit in units[start : start + words_per_span] for index in unit]
        spans.append(
            TextSpan(
                "".join(pieces[index] for index in members), np.concatenate([ids[index] for index in members])
            )
        )
    return spans
