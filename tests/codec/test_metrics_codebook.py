"""Codebook use and bootstrap intervals: closed forms."""

import math

import numpy as np
import pytest
import torch

from codec.metrics import CodebookUse, bootstrap_mean, bootstrap_ratio


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
