"""How predictable a code is from the one or two codes before it: entropies of smoothed n-gram models.

Interpolated modified Kneser-Ney smoothing (Chen and Goodman, Computer Speech and Language, 1999, section 4.1.6). Each
count loses a discount. The discounts of a context go to codes by the number of contexts that they follow, and at the
lowest level evenly to the whole codebook.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

_MARGIN = 0.05  # that a discount keeps from nothing and from its whole count, where the counts of counts are too few


@dataclass(frozen=True)
class NgramEntropy:
    """What held-out codes cost an n-gram model."""

    order: int  # 1: unigram
    bits_per_token: float
    tokens: int  # held out


class NgramModel:
    """N-grams of codes up to an order. With several quantizers the codes of a frame follow each other in a stream.

    The end of a stream is not predicted; its beginning is a context of its own. A code of quantizer q is only ever
    compared with other codes of q: the place in the frame is known.

    Args:
        streams: to count, (frames * num_quantizers,) each, frame-major.
        codebook_sizes: codes of each quantizer.
        order: the longest n-gram.
    """

    def __init__(self, streams: Iterable[np.ndarray], codebook_sizes: Sequence[int], order: int = 3):
        if order < 1:
            raise ValueError(f"order is {order}: at least 1")
        self.order = order
        self._sizes = np.array(codebook_sizes, dtype=np.int64)
        # of a quantizer's first code among all symbols; 0 is what stands before a stream
        self._offsets = 1 + np.concatenate([[0], np.cumsum(self._sizes[:-1])])
        self._symbols = int(self._sizes.sum()) + 1
        if self._symbols**order >= 2**62:
            raise ValueError(f"{self._symbols - 1:,} codes are too many for {order}-grams")
        windows = self._windows(streams)
        # Of the longest n-grams what is counted is occurrences, of shorter ones the codes that stand before them.
        grams, counts = np.unique(self._keys(windows, order), return_counts=True)
        levels = [_Level(grams, counts, self._contexts(grams, order))]
        for length in range(order - 1, 0, -1):
            # the first symbol of a key is its most significant digit
            grams, counts = np.unique(grams % self._symbols**length, return_counts=True)
            levels.append(_Level(grams, counts, self._contexts(grams, length)))
        self._levels = levels[::-1]  # unigrams first

    def entropy(self, streams: Iterable[np.ndarray]) -> NgramEntropy:
        """Cross-entropy of streams that were not counted; NaN without a token."""
        windows = self._windows(streams)
        bits = -np.log2(self.probabilities(windows))
        mean = float(bits.mean()) if len(bits) else float("nan")
        return NgramEntropy(self.order, mean, len(bits))

    def probabilities(self, windows: np.ndarray) -> np.ndarray:
        """Of the last symbol of each window (tokens, order) given those before -> (tokens,)."""
        probability = 1.0 / self._sizes[self._quantizers(windows[:, -1])]
        for length, level in enumerate(self._levels, 1):
            keys = self._keys(windows, length)
            probability = level.refine(keys, self._contexts(keys, length), probability)
        return probability

    def _quantizers(self, symbols: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._offsets, symbols, side="right") - 1

    def _contexts(self, keys: np.ndarray, length: int) -> np.ndarray:
        """What stands before the last symbol; before a unigram nothing but the knowledge of its quantizer."""
        return self._quantizers(keys) if length == 1 else keys // self._symbols

    def _windows(self, streams: Iterable[np.ndarray]) -> np.ndarray:
        """Every token with the order - 1 symbols before it, (tokens, order)."""
        parts = [np.zeros((0, self.order), dtype=np.int64)]
        for stream in streams:
            places = np.arange(len(stream)) % len(self._sizes)
            symbols = stream.astype(np.int64) + self._offsets[places]
            padded = np.concatenate([np.zeros(self.order - 1, dtype=np.int64), symbols])
            if len(stream):
                parts.append(np.lib.stride_tricks.sliding_window_view(padded, self.order))
        return np.concatenate(parts)

    def _keys(self, windows: np.ndarray, length: int) -> np.ndarray:
        """The last `length` symbols of windows (tokens, order) as numbers (tokens,)."""
        keys = np.zeros(len(windows), dtype=np.int64)
        for column in range(self.order - length, self.order):
            keys = keys * self._symbols + windows[:, column]
        return keys


class _Level:
    """N-grams of one length with their counts."""

    def __init__(self, grams: np.ndarray, counts: np.ndarray, contexts: np.ndarray):
        """grams: (grams,) int64, sorted; counts and contexts of each."""
        self.grams = grams
        discounts = _discounts(counts)[np.minimum(counts, 3) - 1]
        self.contexts, of_gram = np.unique(contexts, return_inverse=True)
        self.totals = np.bincount(of_gram, counts)
        self.kept = counts - discounts
        self.left = np.bincount(of_gram, discounts)

    def refine(self, keys: np.ndarray, contexts: np.ndarray, below: np.ndarray) -> np.ndarray:
        """Probabilities (tokens,) of the last symbols after their contexts, given those with a context one shorter."""
        if not len(self.grams):
            return below
        gram, known = _find(self.grams, keys)
        context, seen = _find(self.contexts, contexts)
        mixed = (np.where(known, self.kept[gram], 0.0) + self.left[context] * below) / self.totals[context]
        return np.where(seen, mixed, below)


def _find(ordered: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place of each value in an ordered array, and whether it is there."""
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return places, ordered[places] == values


def _discounts(counts: np.ndarray) -> np.ndarray:
    """Of a count of 1, of 2, and of 3 or more, by the counts of counts."""
    of_count = [int((counts == times).sum()) for times in range(1, 5)]
    first, second = of_count[:2]
    share = first / (first + 2 * second) if first else 0.0
    found = []
    for times in (1, 2, 3):
        here, next_one = of_count[times - 1], of_count[times]
        discount = times - (times + 1) * share * next_one / here if here and share else times / 2
        found.append(min(max(discount, _MARGIN), times - _MARGIN))
    return np.array(found)
