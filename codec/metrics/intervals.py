"""Confidence intervals: by bootstrap over utterances (Bisani and Ney, ICASSP 2004), and of shares by Wilson's score.

Over few utterances the percentiles of a bootstrap are too close together: over three utterances a 95 % interval covers
the true value 75 times in 100. So the percentiles are taken further out (Hesterberg, arXiv 1411.5279), and below twenty
utterances the interval also covers Student's t interval. A single utterance has no interval.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Self

import numpy as np
from scipy.special import stdtrit

from codec.foundation.random import generator

FEW = 20  # utterances: below, intervals are rough
_DRAWS_AT_ONCE = 4_000_000  # 32 MB, however large the corpus
_NOTHING = math.nan


@dataclass(frozen=True)
class Interval:
    """A value with the interval that holds it with probability `level`; bounds are NaN where there is but one value."""

    value: float
    low: float
    high: float
    level: float = 0.95

    @property
    def bounded(self) -> bool:
        """Whether there is an interval around the value."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def to_dict(self) -> dict[str, float | None]:
        """For JSON: null for what is no number there."""
        fields = {"value": self.value, "low": self.low, "high": self.high, "level": self.level}
        return {name: number if math.isfinite(number) else None for name, number in fields.items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, float | None]) -> Self:
        """What `to_dict` made."""
        numbers = {name: _NOTHING if number is None else number for name, number in fields.items()}
        return cls(**numbers)


def bootstrap_ratio(
    numerators: np.ndarray,
    denominators: np.ndarray,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    at_most: float = math.inf,
) -> Interval:
    """Interval of sum(numerators) / sum(denominators) when utterances are drawn again with replacement.

    A corpus's word error rate is such a ratio: errors over reference words, one entry an utterance.
    Utterances are drawn, not words, because errors within one utterance hang together; those without numerator and
    denominator count for nothing. All NaN without a denominator, the bounds with a single utterance. A ratio of
    numbers that are not negative has no negative bound, and none above `at_most`.
    """
    numerators, denominators = np.asarray(numerators, float), np.asarray(denominators, float)
    if numerators.shape != denominators.shape or numerators.ndim != 1:
        raise ValueError(
            f"numerators {numerators.shape} and denominators {denominators.shape}: one an utterance"
        )
    total = denominators.sum()
    if not total:
        return Interval(_NOTHING, _NOTHING, _NOTHING, level)
    there = (numerators != 0) | (denominators != 0)
    numerators, denominators = numerators[there], denominators[there]
    count, value = len(numerators), float(numerators.sum() / total)
    if count == 1:
        return Interval(value, _NOTHING, _NOTHING, level)
    rng, ratios = generator(seed), []
    share = np.full(count, 1.0 / count)
    rows = max(1, _DRAWS_AT_ONCE // count)
    for start in range(0, resamples, rows):
        # how often each utterance is drawn, a row a resample: the ratios are then two matrix products
        draws = rng.multinomial(count, share, size=min(rows, resamples - start))
        weights = draws @ denominators
        ratios.append((draws @ numerators)[weights > 0] / weights[weights > 0])
    quantile = float(stdtrit(count - 1, 0.5 + level / 2.0))
    tail = NormalDist().cdf(-quantile * math.sqrt(count / (count - 1)))
    low, high = map(float, np.quantile(np.concatenate(ratios), (tail, 1.0 - tail)))
    if count < FEW:
        # the standard error of a ratio of sums, linearised
        spread = math.sqrt(count / (count - 1) * float(((numerators - value * denominators) ** 2).sum()))
        half = quantile * spread / float(total)
        low, high = min(low, value - half), max(high, value + half)
    if numerators.min() >= 0.0:
        low = max(low, 0.0)
    return Interval(value, low, min(high, at_most), level)


def bootstrap_mean(
    values: np.ndarray,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    at_most: float = math.inf,
) -> Interval:
    """Interval of a mean over utterances."""
    values = np.asarray(values, float)
    there = np.ones_like(values)
    return bootstrap_ratio(values, there, level, resamples, seed, at_most)


def wilson_interval(successes: float, trials: int, level: float = 0.95) -> Interval:
    """Interval of a share of independent trials (Wilson 1927): it holds what it claims for few trials and near 0 and 1.

    successes: may be fractional, where a tie counts half. All NaN without a trial.
    """
    if not trials:
        return Interval(_NOTHING, _NOTHING, _NOTHING, level)
    return _wilson(successes / trials, trials, NormalDist().inv_cdf(0.5 + level / 2.0), level)


def clustered_share(successes: np.ndarray, trials: np.ndarray, level: float = 0.95) -> Interval:
    """Interval of a share of trials that hang together in clusters, such as samples after one prompt.

    successes, trials: (clusters,), successes may be fractional. Wilson's interval of as many independent trials as the
    clusters are worth, with Student's quantile (Dean and Pagano, Journal of Survey Statistics and Methodology 2015);
    where all trials end the same, a cluster counts as one. Of clusters of one trial it is Wilson's own. All NaN without
    a trial, the bounds with a single cluster of several.
    """
    successes, trials = np.asarray(successes, float), np.asarray(trials, float)
    if successes.shape != trials.shape or successes.ndim != 1:
        raise ValueError(f"successes {successes.shape} and trials {trials.shape}: one a cluster")
    successes, trials = successes[trials > 0], trials[trials > 0]
    count, total = len(trials), float(trials.sum())
    if not count or trials.max() == 1:
        return wilson_interval(float(successes.sum()), count, level)
    share = float(successes.sum()) / total
    if count == 1:
        return Interval(share, _NOTHING, _NOTHING, level)
    spread = share * (1.0 - share)
    # of the share, from cluster to cluster
    variance = count / (count - 1) * float(((successes - share * trials) ** 2).sum()) / total**2
    worth = count if not spread else min(total, spread / variance) if variance else total
    return _wilson(share, worth, float(stdtrit(count - 1, 0.5 + level / 2.0)), level)


def _wilson(share: float, trials: float, z: float, level: float) -> Interval:
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * (share * (1 - share) / trials + z * z / (4 * trials**2)) ** 0.5
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half), level)
