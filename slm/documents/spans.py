"""What is drawn for millions of documents at once: random numbers by their keys, and how long spans of words are.

Numbers are a function of (seed, epoch, row, counter), in any order. One key comes from `codec.foundation.generator`;
from there on a number is a hash of its counters (SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014). A generator object for each row would cost 30 us, a thousand times more.
"""

from functools import lru_cache
from math import ceil, expm1, floor, lgamma, log

import numpy as np

from codec.foundation import generator
from slm.documents.config import DocumentConfig, InterleavedConfig, SpanLengths

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FACTOR_1 = np.uint64(0xBF58476D1CE4E5B9)
_FACTOR_2 = np.uint64(0x94D049BB133111EB)


class Draws:
    """The random numbers of one (seed, epoch)."""

    def __init__(self, seed: int, epoch: int):
        self._keys: dict[str, np.ndarray] = {}
        self._counters = (seed, epoch)

    def streams(self, purpose: str, keys: np.ndarray) -> np.ndarray:
        """One stream of random numbers for each key, (n,) uint64; see `numbers`."""
        if purpose not in self._keys:
            seed, epoch = self._counters
            self._keys[purpose] = generator(seed, "documents", purpose, epoch).integers(
                2**64, size=1, dtype=np.uint64
            )
        return _mix(np.asarray(keys, dtype=np.uint64) * _STEP + self._keys[purpose])


def numbers(streams: np.ndarray, counters: int | np.ndarray) -> np.ndarray:
    """The random 64-bit numbers at some counters of some streams (broadcast), uint64."""
    return _mix(streams + (np.atleast_1d(np.asarray(counters, dtype=np.uint64)) + np.uint64(1)) * _STEP)


def uniform(numbers: np.ndarray) -> np.ndarray:
    """Random numbers as float64 in [0, 1)."""
    return (numbers >> np.uint64(11)) * 2.0**-53


def below(numbers: np.ndarray, bound: int | np.ndarray) -> np.ndarray:
    """Random numbers as int64 in [0, bound), bound < 2**31; from their lower halves."""
    low = numbers & np.uint64(0xFFFFFFFF)
    return ((low * np.asarray(bound, dtype=np.uint64)) >> np.uint64(32)).astype(np.int64)


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * _FACTOR_1
    state = (state ^ (state >> np.uint64(27))) * _FACTOR_2
    return state ^ (state >> np.uint64(31))


# ---- spans of words

_TAIL = 1e-12  # probability that a table of lengths leaves out


def _span_sizes(streams: np.ndarray, counters: int | np.ndarray, config: DocumentConfig) -> np.ndarray:
    return config.min_words + below(numbers(streams, counters), config.max_words - config.min_words + 1)


def first_units(key: np.ndarray, units: int, config: DocumentConfig, draws: Draws) -> np.ndarray:
    """The first unit of each span of one `aligned` document, (spans,) int64."""
    sizes = _span_sizes(draws.streams("spans", key), np.arange(units), config)
    firsts = np.concatenate([[0], np.cumsum(sizes)])
    return firsts[firsts < units]


def count_spans(keys: np.ndarray, units: np.ndarray, config: DocumentConfig, draws: Draws) -> np.ndarray:
    """How many spans `first_units` gives for each of many documents, (documents,) int64.

    units: (documents,) int64, units of each.
    """
    streams = draws.streams("spans", keys)
    left = np.array(units, dtype=np.int64)
    counts = np.zeros(len(left), dtype=np.int64)
    open_rows = np.flatnonzero(left > 0)
    counter = 0
    while open_rows.size:
        counts[open_rows] += 1
        left[open_rows] -= _span_sizes(streams[open_rows], counter, config)
        open_rows = open_rows[left[open_rows] > 0]
        counter += 1
    return counts


def spoken_words(streams: np.ndarray, counts: np.ndarray, config: InterleavedConfig) -> np.ndarray:
    """Which words of many documents are to be speech.

    Text and speech spans take turns, each of a length drawn from its distribution. A document begins somewhere in a
    span: a stationary renewal process gives the modality and the rest of that span. So every word has the same chance
    of being speech; otherwise short documents would have other shares than long ones.

    Args:
        streams: (documents,) uint64, the random stream of each document.
        counts: (documents,) int64, words of each.

    Returns:
        (sum of counts,) bool, document after document.
    """
    text, speech = (_table(config.span_lengths, mean) for mean in config.mean_words)
    counts = np.asarray(counts, dtype=np.int64)
    starts = np.cumsum(counts) - counts
    first_is_speech = uniform(numbers(streams, 0)) < config.speech_share
    fractions = uniform(numbers(streams, 1))
    position = np.where(first_is_speech, speech.rest(fractions), text.rest(fractions))
    turns = np.zeros(int(counts.sum()) + 1, dtype=np.int64)  # 1 where another span begins within a document
    going_on = np.flatnonzero(position < counts)
    is_speech, counter = ~first_is_speech, 2
    while going_on.size:
        turns[starts[going_on] + position[going_on]] = 1
        fractions = uniform(numbers(streams[going_on], counter))
        position[going_on] += np.where(is_speech[going_on], speech.length(fractions), text.length(fractions))
        is_speech = ~is_speech
        counter += 1
        going_on = going_on[position[going_on] < counts[going_on]]
    before = np.cumsum(turns) - turns  # turns before each word, over all documents
    passed = before[:-1] + turns[:-1] - np.repeat(before[starts], counts)
    return np.repeat(first_is_speech, counts) ^ (passed % 2 == 1)


class _LengthTable:
    """A distribution of span lengths from 1 on, as cumulative probabilities."""

    def __init__(self, probabilities: np.ndarray):
        """probabilities: (longest,), of the lengths 1, 2, ..."""
        probabilities = probabilities / probabilities.sum()
        self.mean = float(probabilities @ np.arange(1, len(probabilities) + 1))
        self._lengths = np.cumsum(probabilities)
        # What is left of a span at a word chosen at random: r words with probability P(length >= r) / mean.
        self._rests = np.cumsum(np.cumsum(probabilities[::-1])[::-1]) / self.mean
        self._lengths[-1] = self._rests[-1] = 1.0

    def length(self, fractions: np.ndarray) -> np.ndarray:
        """Lengths for uniform random numbers in [0, 1), int64."""
        return np.searchsorted(self._lengths, fractions, side="right") + 1

    def rest(self, fractions: np.ndarray) -> np.ndarray:
        """Words left of a span at a random word of it, that word included, for uniform random numbers, int64."""
        return np.searchsorted(self._rests, fractions, side="right") + 1


@lru_cache(maxsize=16)
def _table(kind: SpanLengths, mean: float) -> _LengthTable:
    if kind == "fixed":
        return _LengthTable(_between(mean))
    if kind == "uniform":
        widths = _between(2 * mean - 1)  # a mixture of two ranges, where the mean asks for it
        return _LengthTable(np.cumsum((widths / np.arange(1, len(widths) + 1))[::-1])[::-1])
    return _LengthTable(_poisson(mean))


def _between(value: float) -> np.ndarray:
    """The integers next to a value, mixed so that it is their mean; (ceil(value),) probabilities from 1 on."""
    probabilities = np.zeros(ceil(value))
    probabilities[floor(value) - 1] = 1 - (value - floor(value))
    if value > floor(value):
        probabilities[-1] = value - floor(value)
    return probabilities


def _poisson(mean: float) -> np.ndarray:
    """Poisson without 0, of this mean; (longest,) probabilities from 1 on."""
    low, high = 0.0, mean
    for _ in range(100):  # the rate whose mean without 0, rate / (1 - exp(-rate)), is the one asked for
        rate = (low + high) / 2
        if rate and rate / -expm1(-rate) > mean:
            high = rate
        else:
            low = rate
    if high < 1e-9:
        return np.ones(1)
    longest = ceil(high + 12 * high**0.5 + 24)
    lengths = np.arange(1, longest + 1)
    probabilities = np.exp(lengths * log(high) - high - np.array([lgamma(n + 1) for n in lengths.tolist()]))
    return probabilities[: int(np.flatnonzero(probabilities > _TAIL * probabilities.max())[-1]) + 1]
