"""A text as a model is to say it: in spoken words, in characters that it knows, with pauses between stretches."""

import re
from dataclasses import dataclass

from slm.text_normalization import LANGUAGES, normalize, speakable
from slm.vocabulary import Vocabulary

_PAUSE = re.compile(r"\s*\[pause (\d+(?:\.\d+)?) ?s?\]\s*|\s*\n[^\S\n]*\n\s*", re.IGNORECASE)
_BLANK_LINE_SECONDS = 0.6
_LONGEST_PAUSE = 10.0  # seconds


@dataclass(frozen=True)
class SpokenForm:
    """A text as it is said."""

    stretches: list[str]
    pauses: list[float]  # seconds of silence before each stretch
    lost: list[str]  # characters that the model cannot say, each once

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join(self.stretches)

    @property
    def cuts(self) -> list[str]:
        """A line about what is not said."""
        if not self.lost:
            return []
        return [f"the model cannot say {' '.join(map(repr, self.lost))}: left out"]


def spoken_form(text: str, vocabulary: Vocabulary, language: str | None) -> SpokenForm:
    """The spoken form of a text; its words stay as they are written where there are no rules for the language.

    A blank line is a pause, and `[pause 0.5]` one of so many seconds. A text without any keeps its white space.
    """
    stretches: list[str] = []
    pauses: list[float] = []
    lost: dict[str, None] = {}
    pieces = _PAUSE.split(text)  # a stretch, the seconds of a pause or None, a stretch, ...
    waited = 0.0
    for number in range(0, len(pieces), 2):
        if number:
            waited += float(pieces[number - 1] or _BLANK_LINE_SECONDS)
        said = normalize(pieces[number], language) if language in LANGUAGES else pieces[number]
        said, unsaid = speakable(said, vocabulary.knows)
        lost |= dict.fromkeys(unsaid)
        if any(map(str.isalnum, said)):
            stretches.append(said)
            pauses.append(min(waited, _LONGEST_PAUSE))
            waited = 0.0
    return SpokenForm(stretches, pauses, list(lost))
