"""Word and character error rates between transcripts, by jiwer, under one stated normalisation."""

import re
import unicodedata
from dataclasses import dataclass

from codec.metrics.dependencies import require

_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'"})
_NOT_A_WORD = re.compile(r"[^\w']|_")
_EDGE_APOSTROPHE = re.compile(r"(?<!\w)'|'(?!\w)")


def normalize_transcript(text: str) -> str:
    """What is compared: NFKC, lower case, words of letters and digits with inner apostrophes, single spaces.

    Every other sign separates words ("twenty-one" is two). Numerals and abbreviations are not spelled out, so
    write references the way they are read.
    """
    text = unicodedata.normalize("NFKC", text).translate(_APOSTROPHES).lower()
    text = _EDGE_APOSTROPHE.sub(" ", _NOT_A_WORD.sub(" ", text))
    return " ".join(text.split())


@dataclass(frozen=True)
class EditCounts:
    """Edits between a reference and a hypothesis; add them up over utterances for a corpus's rate."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    length: int = 0  # of the reference, in words or characters

    @property
    def errors(self) -> int:
        """All edits."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors a reference unit; can exceed 1; NaN without a reference."""
        return self.errors / self.length if self.length else float("nan")

    def __add__(self, other: "EditCounts") -> "EditCounts":
        return EditCounts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.length + other.length,
        )


def word_errors(reference: str, hypothesis: str) -> EditCounts:
    """Word edits of one utterance after normalisation. Raises MissingDependency without jiwer."""
    jiwer = require("jiwer", "the word error rate")
    output = jiwer.process_words(normalize_transcript(reference), normalize_transcript(hypothesis))
    return _counts(output)


def character_errors(reference: str, hypothesis: str) -> EditCounts:
    """Character edits of one utterance after normalisation; the space between words counts as a character."""
    jiwer = require("jiwer", "the character error rate")
    output = jiwer.process_characters(normalize_transcript(reference), normalize_transcript(hypothesis))
    return _counts(output)


def _counts(output) -> EditCounts:  # type: ignore[no-untyped-def]  # a jiwer.WordOutput or CharacterOutput
    return EditCounts(
        output.substitutions,
        output.deletions,
        output.insertions,
        output.hits + output.substitutions + output.deletions,
    )
