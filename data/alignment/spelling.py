"""Words as the letters that a model of characters knows."""

import unicodedata
from collections.abc import Iterator, Mapping

_APOSTROPHES = {"'": "'", "\u2019": "'", "\u02bc": "'"}


def spell(word: str, letters: Mapping[str, int]) -> list[int] | None:
    """The tokens of a word: its letters as the vocabulary writes them, whatever their case or accents.

    Punctuation says nothing and is left out; apostrophes stay where the vocabulary has them. Empty for a word of
    punctuation alone; None for one with a letter or digit that the vocabulary cannot write.
    """
    tokens: list[int] = []
    for character in unicodedata.normalize("NFC", word):
        if not (character in _APOSTROPHES or character.isalnum() or _is_mark(character)):
            continue
        found = next(
            (form for form in _forms(character) if form and all(part in letters for part in form)), None
        )
        if found is not None:
            tokens += [letters[part] for part in found]
        elif character.isalnum():
            return None
    return tokens if any(character.isalnum() for character in word) else []


def _forms(character: str) -> Iterator[str]:
    """Ways to write a character, the most faithful first."""
    yield character
    yield character.lower()
    yield character.upper()
    plain = _APOSTROPHES.get(character) or "".join(
        part for part in unicodedata.normalize("NFKD", character.casefold()) if not _is_mark(part)
    )
    yield plain
    yield plain.upper()


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")
