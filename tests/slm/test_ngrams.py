"""N-gram entropies: against sources whose entropy rate is known, and against the formula written out."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from slm.evaluation.ngrams import NgramModel

SIZE = 12


def markov(streams: int, length: int, seed: int, transitions: np.ndarray) -> list[np.ndarray]:
    """Streams of a first-order Markov chain that begins anywhere, evenly."""
    rng = np.random.default_rng(seed)
    steps = transitions.cumsum(axis=1)
    state = rng.integers(0, SIZE, streams)
    rows = [state]
    for _ in range(length - 1):
        state = (steps[state] < rng.random((streams, 1))).sum(axis=1)
        rows.append(state)
    return list(np.stack(rows, axis=1).astype(np.uint16))


def test_a_markov_source_costs_its_entropy_rate() -> None:
    transitions = np.random.default_rng(0).dirichlet(np.full(SIZE, 0.3), SIZE) + 1e-3
    transitions /= transitions.sum(axis=1, keepdims=True)
    values, vectors = np.linalg.eig(transitions.T)
    stationary = np.real(vectors[:, np.argmax(np.real(values))])
    stationary /= stationary.sum()
    rate = -(stationary[:, None] * transitions * np.log2(transitions)).sum()
    marginal = -(stationary * np.log2(stationary)).sum()
    train, held_out = markov(100, 2_000, 1, transitions), markov(100, 1_000, 2, transitions)
    bits = [NgramModel(train, [SIZE], order).entropy(held_out).bits_per_token for order in (1, 2, 3)]
    assert bits[0] == pytest.approx(marginal, rel=0.01)
    assert bits[1] == pytest.approx(rate, rel=0.01)
    assert bits[2] == pytest.approx(rate, rel=0.02)  # a context more knows no more, and costs a little
    assert marginal > 1.2 * rate  # or the test would not tell them apart


def test_quantizers_have_codes_of_their_own() -> None:
    """The second code of a frame is a function of the first; the first is drawn evenly."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 8, 40_000)
    streams = np.stack([frames, 3 - frames % 4], axis=1).reshape(100, -1).astype(np.uint16)
    bits = [
        NgramModel(streams[:80], [8, 4], order).entropy(streams[80:]).bits_per_token for order in (1, 2, 3)
    ]
    assert bits == pytest.approx([(3 + 2) / 2, 3 / 2, 3 / 2], rel=0.01)


def test_probabilities_of_all_codes_sum_to_one() -> None:
    rng = np.random.default_rng(0)
    streams = [rng.integers(0, [3, 5], (n, 2)).reshape(-1) for n in (4, 7, 2)]
    model = NgramModel(streams, [3, 5], 3)
    windows = model._windows([*streams, np.array([2, 4, 1, 4, 0, 0])])
    for window in np.unique(windows[:, :2], axis=0):
        quantizer = 0 if window[-1] == 0 or window[-1] > 3 else 1
        codes = np.arange(1, 4) if quantizer == 0 else np.arange(4, 9)
        asked = np.column_stack([np.repeat(window[None], len(codes), axis=0), codes])
        probabilities = model.probabilities(asked)
        assert probabilities.min() > 0 and probabilities.sum() == pytest.approx(1.0)


def test_bigrams_by_the_formula() -> None:
    rng = np.random.default_rng(3)
    streams = [(rng.random(30) ** 3 * 9).astype(int) for _ in range(6)]
    held_out = rng.integers(0, 9, 20)
    bigrams: Counter[tuple[int, int]] = Counter()
    for stream in streams:
        bigrams.update(itertools.pairwise([-1, *stream.tolist()]))
    before: Counter[int] = Counter(code for _, code in bigrams)  # how many contexts each code follows

    def discounts(counts: Counter) -> list[float]:
        n = [0, *(sum(count == times for count in counts.values()) for times in (1, 2, 3, 4))]
        y = n[1] / (n[1] + 2 * n[2]) if n[1] else 0.0
        return [
            min(max(i - (i + 1) * y * n[i + 1] / n[i], 0.05), i - 0.05) if n[i] and y else i / 2
            for i in (1, 2, 3)
        ]

    def smoothed(counts: Counter, key: object, context: list, below: float) -> float:
        total = sum(counts[k] for k in context)
        d = discounts(counts)
        left = sum(d[min(counts[k], 3) - 1] for k in context)
        own = counts[key] - d[min(counts[key], 3) - 1] if key in counts else 0.0
        return (own + left * below) / total if total else below

    bits = 0.0
    for last, code in itertools.pairwise([-1, *held_out.tolist()]):
        unigram = smoothed(before, code, list(before), 1 / 9)
        context = [key for key in bigrams if key[0] == last]
        bits -= math.log2(smoothed(bigrams, (last, code), context, unigram))
    assert NgramModel(streams, [9], 2).entropy([held_out]).bits_per_token == pytest.approx(
        bits / 20, rel=1e-9
    )


def test_nothing_to_count_or_to_predict() -> None:
    assert NgramModel([], [16], 3).entropy([np.arange(16)]).bits_per_token == pytest.approx(4.0)
    assert math.isnan(NgramModel([np.arange(16)], [16], 2).entropy([]).bits_per_token)
    with pytest.raises(ValueError, match="too many"):
        NgramModel([], [2**16] * 2, 4)
