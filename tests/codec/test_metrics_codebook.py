"""Codebook use and bootstrap intervals: closed forms."""

import math

import numpy as np
import pytest
import torch

from codec.metrics import CodebookUse, bootstrap_mean, bootstrap_ratio, wilson_interval


def test_known_distribution() -> None:
    use = CodebookUse([8])
    use.update(torch.tensor([[0, 0]]))
    use.update(np.array([[3, 7]], dtype=np.uint16))
    (statistics,) = use.statistics()
    assert (statistics.used, statistics.frames, statistics.nominal_bits) == (3, 4, 3.0)
    assert statistics.entropy_bits == pytest.approx(1.5)  # 1/2, 1/4, 1/4
    assert statistics.perplexity == pytest.approx(2**1.5)
    assert use.nominal_bitrate(24.0) == 72 and use.entropy_bitrate(24.0) == pytest.approx(36)


def test_uniform_use_reaches_the_nominal_bitrate_over_all_quantizers() -> None:
    use = CodebookUse([2_048, 4])
    use.update(np.stack([np.arange(2_048), np.arange(2_048) % 4]))
    assert use.entropy_bitrate(24.0) == pytest.approx(24 * (11 + 2)) == use.nominal_bitrate(24.0)
    assert [s.used for s in use.statistics()] == [2_048, 4]


def test_a_lone_code_carries_nothing_and_an_empty_count_is_harmless() -> None:
    use = CodebookUse([16])
    assert use.statistics()[0].used == 0
    use.update(np.full((1, 9), 5))
    assert use.statistics()[0].perplexity == 1 and math.copysign(1, use.statistics()[0].entropy_bits) == 1


def test_codes_of_another_codec_are_refused() -> None:
    use = CodebookUse([16])
    with pytest.raises(ValueError, match="16 codes; these run from 3 to 16"):
        use.update(np.array([[3, 16]]))
    with pytest.raises(ValueError, match="num_quantizers=1"):
        use.update(np.zeros((2, 3), int))


def test_bootstrap_of_a_coin_is_the_binomial_interval() -> None:
    heads = np.r_[np.ones(30), np.zeros(70)]
    interval = bootstrap_mean(heads)
    # the 2.5 % and 97.5 % quantiles of Binomial(100, 0.3)
    assert interval.value == pytest.approx(0.3)
    assert (interval.low, interval.high) == (pytest.approx(0.21, abs=0.011), pytest.approx(0.39, abs=0.011))
    assert bootstrap_mean(heads) == interval  # the same draws every time


def test_bootstrap_of_error_rates_weighs_utterances_by_their_words() -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(1, 30, 200)
    errors = rng.binomial(words, 0.2)
    interval = bootstrap_ratio(errors, words)
    assert interval.value == errors.sum() / words.sum()
    # the linearised standard error of a ratio of sums
    rate = interval.value
    error = math.sqrt(((errors - rate * words) ** 2).sum()) / words.sum()
    assert interval.low == pytest.approx(rate - 1.96 * error, abs=0.1 * error + 1e-3)
    assert interval.high == pytest.approx(rate + 1.96 * error, abs=0.1 * error + 1e-3)
    assert math.isnan(bootstrap_ratio(np.zeros(3), np.zeros(3)).value)


def test_wilson_intervals_hold_what_they_claim() -> None:
    """The exact coverage, summed over all outcomes of a binomial, is near the level also for few trials."""
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (successes, trials), (low, high) in published.items():
        interval = wilson_interval(successes, trials)
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)
    for trials in (10, 40, 200):
        intervals = [wilson_interval(k, trials) for k in range(trials + 1)]
        coverages = []
        for share in np.linspace(0.05, 0.95, 91):
            chances = [
                math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(trials + 1)
            ]
            coverages.append(
                sum(c for c, i in zip(chances, intervals, strict=True) if i.low <= share <= i.high)
            )
        assert np.mean(coverages) == pytest.approx(0.95, abs=0.01)
        assert min(coverages) > 0.82
    assert math.isnan(wilson_interval(0, 0).value)
