"""Intervals of few values and of values that hang together: they cover what they claim."""

import math

import numpy as np
import pytest

from codec.metrics import Interval, bootstrap_mean, bootstrap_ratio, clustered_share, wilson_interval


def test_over_few_utterances_the_interval_covers_students() -> None:
    """Half widths by the published quantiles of Student's t, two-sided 95 %."""
    published = {2: 12.7062, 3: 4.3027, 4: 3.1824, 5: 2.7764, 11: 2.2281}
    rng = np.random.default_rng(0)
    for count, quantile in published.items():
        values = rng.normal(0.0, 1.0, count)
        half = quantile * values.std(ddof=1) / math.sqrt(count)
        interval = bootstrap_mean(values, resamples=200)
        assert (
            interval.low <= values.mean() - half * 0.9999 and interval.high >= values.mean() + half * 0.9999
        )
        if count < 4:  # the percentiles of so few lie inside
            assert interval.high - interval.low == pytest.approx(2 * half, rel=2e-5)


def test_a_ratio_is_of_sums_and_no_mean_of_ratios() -> None:
    """Short utterances that go wrong whole weigh as little as they are short, in the value and in its bounds."""
    words = np.array([100.0, 1.0] * 50)
    errors = np.ones(100)
    interval = bootstrap_ratio(errors, words)
    assert interval.value == 100 / 5_050  # the mean of the ratios is 0.505
    assert 0.015 < interval.low < interval.value < interval.high < 0.03
    few = bootstrap_ratio(errors[:10], words[:10])
    assert few.value == 10 / 505 and few.high < 0.1


def test_of_one_utterance_there_is_no_interval() -> None:
    for alone in (bootstrap_ratio(np.array([3.0]), np.array([10.0])), bootstrap_mean(np.array([0.3]))):
        assert alone.value == 0.3 and not alone.bounded
        assert alone.to_dict() == {"value": 0.3, "low": None, "high": None, "level": 0.95}
        assert (
            Interval.from_dict(alone.to_dict()).value == 0.3
            and not Interval.from_dict(alone.to_dict()).bounded
        )
    # an utterance without words, in which nothing was heard either, is none
    assert not bootstrap_ratio(np.array([3.0, 0.0]), np.array([10.0, 0.0])).bounded
    assert bootstrap_ratio(np.array([3.0, 1.0]), np.array([10.0, 0.0])).bounded
    assert not clustered_share(np.array([2]), np.array([4])).bounded
    two = bootstrap_mean(np.array([0.9, 1.0]), at_most=1.0)
    assert two.low >= 0.0 and two.high == 1.0


@pytest.mark.parametrize("count", [3, 5, 8, 20])
def test_intervals_of_few_utterances_cover_what_they_claim(count: int) -> None:
    """Percentiles of a plain bootstrap cover 0.78 to 0.93 of such error rates."""
    rng = np.random.default_rng(count)
    held = trials = 0
    for corpus in range(300):
        words = rng.integers(3, 12, count)
        errors = rng.binomial(words, rng.beta(2, 6, count))  # a quarter on the whole
        interval = bootstrap_ratio(errors, words, resamples=300, seed=corpus)
        held += interval.low <= 0.25 <= interval.high
        trials += 1
    # a share of 0.93 in 300 has a standard error of 1.5 %
    assert held / trials > 0.895


@pytest.mark.parametrize(("clusters", "trials"), [(10, 4), (51, 4), (20, 10)])
def test_shares_of_what_hangs_together(clusters: int, trials: int) -> None:
    """Prompts of which some end nearly always and some nearly never: Wilson's interval covers some 78 %."""
    rng = np.random.default_rng(clusters)
    held = naive = 0
    for _ in range(400):
        ended = rng.binomial(trials, rng.beta(0.5, 0.5, clusters))
        interval = clustered_share(ended, np.full(clusters, trials))
        held += interval.low <= 0.5 <= interval.high
        plain = wilson_interval(float(ended.sum()), trials * clusters)
        naive += plain.low <= 0.5 <= plain.high
    assert held / 400 > 0.92 and naive / 400 < 0.85


def test_clusters_of_one_are_independent_trials() -> None:
    ends = np.array([1.0, 0.0, 0.5, 1.0, 1.0])
    assert clustered_share(ends, np.ones(5)) == wilson_interval(3.5, 5)
    assert math.isnan(clustered_share(np.zeros(0), np.zeros(0)).value)
    # all samples of all prompts end: as certain as if there were one of each
    all_end = clustered_share(np.full(20, 4.0), np.full(20, 4.0))
    assert wilson_interval(20, 20).low - 0.02 < all_end.low < wilson_interval(80, 80).low
    # never more certain than independent trials
    even = clustered_share(np.full(20, 2.0), np.full(20, 4.0))
    assert even.low <= wilson_interval(40, 80).low
