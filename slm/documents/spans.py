"""Spans of words: how long each is, drawn for many documents at once."""

from functools import lru_cache
from math import ceil, expm1, floor, lgamma, log

import numpy as np

from slm.documents.config import DocumentConfig, InterleavedConfig, SpanLengths
from slm.documents.draws import Draws, below, numbers, uniform

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
