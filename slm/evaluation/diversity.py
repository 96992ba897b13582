"""Texts that repeat themselves or each other: auto-BLEU, self-BLEU and VERT (GSLM, arXiv 2102.01192, section 5.3).

All are low for texts that say much: a model that babbles has a high auto-BLEU, one that always says the same a high
self-BLEU. They grow with the length of the texts, and self-BLEU with their number: compare like with like.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

ORDER = 2  # as GSLM has it: up to pairs of words


def auto_bleu(words: Sequence[str], order: int = ORDER) -> float:
    """How much a text repeats itself, 0 to 1; NaN for fewer words than `order`.

    The geometric mean over n = 1 ... `order` of the share of its n-grams that are there once more, before or after and
    not overlapping: "Auto-BLEU2-geometric" of GSLM's code.
    """
    if len(words) < order:
        return math.nan
    return _geometric_mean(_repeated_share(words, length) for length in range(1, order + 1))


def self_bleu(texts: Sequence[Sequence[str]], order: int = ORDER) -> list[float]:
    """How much each text, a list of words, repeats others: its BLEU with all others as references, 0 to 1.

    Precisions are clipped as BLEU's are, their geometric mean over n = 1 ... `order` is taken, and shortness costs
    nothing. NaN for a text of fewer words than `order`, which is no reference either, and for one that is alone.
    """
    long_enough = [number for number, words in enumerate(texts) if len(words) >= order]
    scores = [math.nan] * len(texts)
    if len(long_enough) < 2:
        return scores
    precisions: dict[int, list[float]] = {number: [] for number in long_enough}
    for length in range(1, order + 1):
        counts = {number: Counter(_ngrams(texts[number], length)) for number in long_enough}
        most = _Most(counts)
        for number, own in counts.items():
            matched = sum(min(count, most.elsewhere(gram, number)) for gram, count in own.items())
            precisions[number].append(matched / own.total())
    for number in long_enough:
        scores[number] = _geometric_mean(precisions[number])
    return scores


def vert(auto: float, among: float) -> float:
    """The geometric mean of a mean auto-BLEU and a mean self-BLEU: one number for diVERsiTy, lower is more diverse."""
    return math.sqrt(auto * among)


class _Most:
    """How often an n-gram is in the one text, and in the one after it, that have it most often."""

    def __init__(self, counts: dict[int, Counter[tuple[str, ...]]]):
        self._first: dict[tuple[str, ...], tuple[int, int]] = {}  # count, text
        self._second: dict[tuple[str, ...], int] = {}
        for number, own in counts.items():
            for gram, count in own.items():
                most, _ = self._first.get(gram, (0, -1))
                if count > most:
                    self._first[gram], count = (count, number), most
                self._second[gram] = max(self._second.get(gram, 0), count)

    def elsewhere(self, gram: tuple[str, ...], text: int) -> int:
        """The most that any other text has it."""
        count, holder = self._first[gram]
        return self._second[gram] if holder == text else count


def _repeated_share(words: Sequence[str], length: int) -> float:
    places: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, gram in enumerate(_ngrams(words, length)):
        places[gram].append(place)
    # the occurrence farthest from one is the gram's first or its last
    repeated = sum(max(place - own[0], own[-1] - place) >= length for own in places.values() for place in own)
    return repeated / (len(words) - length + 1)


def _ngrams(words: Sequence[str], length: int) -> Iterable[tuple[str, ...]]:
    return (tuple(words[start : start + length]) for start in range(len(words) - length + 1))


def _geometric_mean(shares: Iterable[float]) -> float:
    values = list(shares)
    return math.prod(values) ** (1.0 / len(values))
