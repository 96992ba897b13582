"""Labels of segments: exactly the words that are heard whole, and the stretch in which no other is."""

import numpy as np
import pytest

from data.corpora import Utterance, Word
from data.segments import Labeller, alphabet_of

RATE = 1_000
WORDS = [Word("Who", 0.1, 0.3), Word("is", 0.3, 0.4), Word("it,", 0.6, 0.8), Word("Ann?", 1.0, 1.5)]
TEXT = "Who is it, Ann?"


def labeller(words: list[Word] | None = WORDS) -> Labeller:
    utterance = Utterance("u", "u.wav", TEXT, words=words)
    return Labeller([utterance], RATE, alphabet_of([utterance]))


def said(found: Labeller, start: int, length: int, total: int = 1_800) -> tuple[str, int, int]:
    labels = found.label("u", start, length, total)
    alphabet = alphabet_of([Utterance("u", "u.wav", TEXT)])
    return "".join(alphabet[number] for number in labels.characters), labels.start, labels.end


def test_the_alphabet_is_of_what_is_spoken() -> None:
    texts = ["Größe 7!", "it's", None]
    assert alphabet_of([Utterance(str(n), "x", text) for n, text in enumerate(texts)]) == " '7egirstßö"


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (0, 1_800, ("who is it ann", 0, 1_800)),
        (0, 900, ("who is it", 0, 900)),
        (0, 1_200, ("who is it", 0, 1_000)),  # "Ann" begins at 1.0 and is cut off: the stretch ends there
        (200, 700, ("is it", 100, 700)),  # "Who" is cut off: it ends at 0.3
        (300, 200, ("is", 0, 200)),
        (650, 100, ("", 0, 0)),
        (1_500, 300, ("", 0, 0)),
    ],
)
def test_words_inside_count(start: int, length: int, expected: tuple[str, int, int]) -> None:
    assert said(labeller(), start, length) == expected


def test_every_stretch_holds_its_words_and_no_others() -> None:
    random = np.random.default_rng(0)
    found = labeller()
    for _ in range(300):
        start, length = int(random.integers(0, 1_700)), int(random.integers(50, 1_800))
        text, first, end = said(found, start, length)
        heard = []
        for word in WORDS:
            begin, stop = round(word.start * RATE) - start, round(word.end * RATE) - start
            overlap = min(stop, end) - max(begin, first)
            assert overlap <= 0 or (begin >= first and stop <= end)  # none is cut
            if overlap > 0:
                heard.append("".join(c for c in word.word.lower() if c.isalnum()))
        assert " ".join(heard) == text


def test_unplaced_words_and_missing_times() -> None:
    unplaced = [WORDS[0], Word("is", None, None), WORDS[2], WORDS[3]]
    assert said(labeller(unplaced), 0, 1_800) == ("", 0, 0)
    assert said(labeller(unplaced), 500, 1_300) == ("", 0, 0)  # "is" may be said right before "it"
    assert said(labeller(unplaced), 700, 1_100) == ("ann", 100, 1_100)
    assert said(labeller(None), 0, 1_800) == ("who is it ann", 0, 1_800)
    assert said(labeller(None), 0, 1_799) == said(labeller(None), 1, 1_799) == ("", 0, 0)
