"""Confidence intervals: by bootstrap over utterances (Bisani and Ney, ICASSP 2004), and of shares by Wilson's score."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from codec.runs.random import generator

_DRAWS_AT_ONCE = 4_000_000  # 32 MB, however large the corpus


@dataclass(frozen=True)
class Interval:
    """A value with the interval that holds it with probability `level`."""

    value: float
    low: float
    high: float
    level: float = 0.95


def bootstrap_ratio(
    numerators: np.ndarray,
    denominators: np.ndarray,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Interval of sum(numerators) / sum(denominators) when utterances are drawn again with replacement.

    A corpus's word error rate is such a ratio: errors over reference words, one entry an utterance.
    Utterances are drawn, not words, because errors within one utterance hang together. All NaN without a
    denominator.
    """
    numerators, denominators = np.asarray(numerators, float), np.asarray(denominators, float)
    if numerators.shape != denominators.shape or numerators.ndim != 1:
        raise ValueError(
            f"numerators {numerators.shape} and denominators {denominators.shape}: one an utterance"
        )
    total = denominators.sum()
    if not total:
        return Interval(float("nan"), float("nan"), float("nan"), level)
    rng, count, ratios = generator(seed), len(numerators), []
    share = np.full(count, 1.0 / count)
    rows = max(1, _DRAWS_AT_ONCE // count)
    for start in range(0, resamples, rows):
        # how often each utterance is drawn, a row a resample: the ratios are then two matrix products
        draws = rng.multinomial(count, share, size=min(rows, resamples - start))
        weights = draws @ denominators
        ratios.append((draws @ numerators)[weights > 0] / weights[weights > 0])
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(np.concatenate(ratios), (tail, 1.0 - tail))
    return Interval(float(numerators.sum() / total), float(low), float(high), level)


def bootstrap_mean(
    values: np.ndarray, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Interval of a mean over utterances."""
    values = np.asarray(values, float)
    return bootstrap_ratio(values, np.ones_like(values), level, resamples, seed)


def wilson_interval(successes: float, trials: int, level: float = 0.95) -> Interval:
    """Interval of a share of independent trials (Wilson 1927): it holds what it claims for few trials and near 0 and 1.

    successes: may be fractional, where a tie counts half. All NaN without a trial.
    """
    if not trials:
        return Interval(float("nan"), float("nan"), float("nan"), level)
    z = NormalDist().inv_cdf(0.5 + level / 2.0)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * (share * (1 - share) / trials + z * z / (4 * trials**2)) ** 0.5
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half), level)
