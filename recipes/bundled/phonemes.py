"""English phonemes with their places in the text, and their times.

The alphabet is that of misaki (Kokoro's): one character a phoneme, "A I O W Y" are diphthongs, "ʤ ʧ" affricates,
"ˈ ˌ" stress before the vowel, "ː" length. `hibari` has the dictionary and the rules.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from codec.foundation import UserError
from recipes.bundled.speech import Sentence, TimedPhone, TimedWord

PUNCTUATION = frozenset(';:,.!?—…"()“”')
STRESS = frozenset("ˈˌ")
MODIFIERS = frozenset("ː̃ʰʲ")
"""They belong to the phoneme before them."""

SILENCE = "sil"
MIN_SILENCE = 0.06
"""Shortest pause between two words in seconds; the neighbours share a shorter one."""

MAX_CHARACTERS = 400


@dataclass(frozen=True)
class Character:
    """A character of a phoneme string, and the index of its written word; None for a space."""

    character: str
    word: int | None


def import_package(name: str, wheels: str) -> Any:
    """Import an optional module; raises UserError with the command that installs `wheels`."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{name} is not installed ({error}): pip install --no-deps {wheels}") from error


@lru_cache(maxsize=1)
def _g2p() -> Any:
    return import_package("hibari.g2p", "hibari-tts").G2P()


def phonemize(sentence: Sentence, vocabulary: frozenset[str]) -> list[Character]:
    """The phonemes of a sentence that are in the reader's vocabulary.

    Raises ValueError when the phonemes cannot be divided among the written words, or a word has none.
    """
    g2p = _g2p()
    owners = [number for number, part in enumerate(sentence.spoken) for _ in part.split()]
    spoken = import_package("hibari.g2p", "hibari-tts").normalize(" ".join(sentence.spoken))
    if len(spoken.split()) != len(owners):
        raise ValueError(f"read as other words than are given: {spoken!r}")
    characters: list[Character] = []
    position = 0
    for token in g2p.phonemize_tokens(g2p.tokenize(spoken)):
        if position >= len(owners):
            raise ValueError(f"more words were read than there are in {spoken!r}")
        for character in token.phonemes or "":
            characters.append(Character(character, None if character == " " else owners[position]))
        if token.whitespace:
            characters.append(Character(" ", None))
            position += 1
    if position != len(owners) - 1:
        raise ValueError(f"fewer words were read than there are in {spoken!r}")
    characters = [one for one in characters if one.character in vocabulary]
    while characters and characters[0].character == " ":
        characters.pop(0)
    while characters and characters[-1].character == " ":
        characters.pop()
    if len(characters) > MAX_CHARACTERS:
        raise ValueError(f"{len(characters)} phonemes are too many to be read at once")
    heard = {one.word for one in characters if one.character not in PUNCTUATION}
    silent = [word for number, word in enumerate(sentence.words) if number not in heard]
    if silent:
        raise ValueError(f"nothing is said for {silent[0]!r}")
    return characters


def timed_words(
    words: Sequence[str], characters: Sequence[Character], durations: np.ndarray
) -> list[TimedWord]:
    """The time of each written word, without the pause of its punctuation.

    durations: seconds `(1 + characters + 1,)`; the first and the last are the silence at both ends.
    """
    ends = np.cumsum(durations)  # ends[k] is where character k starts
    span: dict[int, tuple[float, float]] = {}
    for number, one in enumerate(characters):
        if one.word is not None and one.character not in PUNCTUATION:
            start = span[one.word][0] if one.word in span else ends[number]
            span[one.word] = (float(start), float(ends[number + 1]))
    return [TimedWord(word, *span[number]) for number, word in enumerate(words)]


def timed_phones(characters: Sequence[Character], durations: np.ndarray) -> list[TimedPhone]:
    """Phones and pauses without gaps. Stress and length marks are part of their vowel's time, not of its name.

    The neighbours share a space without punctuation that is shorter than `MIN_SILENCE`. durations: as in
    `timed_words`.
    """
    pieces: list[tuple[str, float]] = [(SILENCE, float(durations[0]))]
    carried = 0.0  # the time of a stress mark, for the phone that follows
    for one, seconds in zip(characters, durations[1:-1], strict=True):
        seconds = float(seconds)
        if one.character in STRESS:
            carried += seconds
        elif one.character in MODIFIERS and pieces[-1][0] != SILENCE:
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + seconds)
        elif one.character == " " or one.character in PUNCTUATION:
            silence = " " if one.character == " " else SILENCE
            if pieces[-1][0] in (" ", SILENCE):
                name = SILENCE if SILENCE in (pieces[-1][0], silence) else " "
                pieces[-1] = (name, pieces[-1][1] + seconds)
            else:
                pieces.append((silence, seconds))
        else:
            pieces.append((one.character, seconds + carried))
            carried = 0.0
    pieces.append((SILENCE, float(durations[-1]) + carried))
    return _laid_out(pieces)


def _laid_out(pieces: Sequence[tuple[str, float]]) -> list[TimedPhone]:
    names: list[str] = []
    lengths: list[float] = []
    owed = 0.0  # the second half of a short space, for the phone that follows
    for name, seconds in pieces:
        if name == " " and seconds < MIN_SILENCE:
            lengths[-1] += seconds / 2
            owed = seconds / 2
            continue
        name = SILENCE if name == " " else name
        if names and name == names[-1] == SILENCE:
            lengths[-1] += seconds + owed
        else:
            names.append(name)
            lengths.append(seconds + owed)
        owed = 0.0
    ends = np.cumsum([0.0, *lengths])
    return [
        TimedPhone(name, float(start), float(end))
        for name, start, end in zip(names, ends, ends[1:], strict=False)
        if end > start
    ]
