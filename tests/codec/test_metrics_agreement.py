"""Metrics beside independent implementations, and intervals beside what they claim."""

import numpy as np
import pytest
import torch
import torchaudio

from codec.metrics import (
    CodebookUse,
    bootstrap_mean,
    bootstrap_ratio,
    character_errors,
    compare_f0,
    pesq_wide_band,
    stoi,
    word_errors,
)
from tests.codec.small_codecs import speech_like

SENTENCES = [
    ("the cat sat on the mat", "the cat sat on mat"),
    ("we will meet again one day", "we well meat again won day"),
    ("nobody was in a hurry", "nobody"),
    ("turn right at the bridge", "turn right at the the bridge now"),
]


def test_error_rates_are_those_of_jiwer() -> None:
    jiwer = pytest.importorskip("jiwer")
    said, heard = map(list, zip(*SENTENCES, strict=True))
    words = sum((word_errors(*pair) for pair in SENTENCES[1:]), word_errors(*SENTENCES[0]))
    characters = sum((character_errors(*pair) for pair in SENTENCES[1:]), character_errors(*SENTENCES[0]))
    assert words.rate == pytest.approx(jiwer.wer(said, heard), abs=1e-12)
    assert characters.rate == pytest.approx(jiwer.cer(said, heard), abs=1e-12)


def test_stoi_and_pesq_are_those_of_their_packages() -> None:
    pystoi, pesq = pytest.importorskip("pystoi"), pytest.importorskip("pesq")
    speech = speech_like(1, 60_000)[0]
    noisy = speech + 0.05 * torch.randn(len(speech), generator=torch.Generator().manual_seed(0))
    direct = pystoi.stoi(speech.double().numpy(), noisy.double().numpy(), 24_000)
    assert stoi(speech, noisy, 24_000) == pytest.approx(direct, abs=1e-9)
    at_16k = [torchaudio.functional.resample(wave, 24_000, 16_000).numpy() for wave in (speech, noisy)]
    # two resamplers that differ in their filters
    assert pesq_wide_band(speech, noisy, 24_000) == pytest.approx(pesq.pesq(16_000, *at_16k, "wb"), abs=0.02)


def test_voicing_and_codebook_use_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    reference, estimate = (rng.uniform(80, 200, 500) * (rng.random(500) < 0.6) for _ in range(2))
    score = compare_f0(reference, estimate)
    voiced, called = reference > 0, estimate > 0
    assert score.f1 == pytest.approx(metrics.f1_score(voiced, called), abs=1e-12)
    assert score.precision == pytest.approx(metrics.precision_score(voiced, called), abs=1e-12)
    assert score.recall == pytest.approx(metrics.recall_score(voiced, called), abs=1e-12)
    both = voiced & called
    rmse = metrics.root_mean_squared_error(reference[both], estimate[both])
    assert score.f0_rmse_hz == pytest.approx(rmse, rel=1e-12)
    codes = rng.integers(0, 50, 2_000)
    use = CodebookUse([64])
    use.update(codes[None])
    # the entropy of a thing is what it tells of itself
    entropy = metrics.mutual_info_score(codes, codes)
    assert use.statistics()[0].perplexity == pytest.approx(np.exp(entropy), rel=1e-9)


def test_bootstrap_intervals_cover_what_they_claim() -> None:
    """Of 200 corpora of 80 utterances with a known error rate, some 95 % of the intervals hold it."""
    rng = np.random.default_rng(1)
    ratios = means = 0
    for corpus in range(200):
        words = rng.integers(3, 20, 80)
        hardness = rng.beta(2, 6, 80)  # errors within an utterance hang together; a quarter on the whole
        ratio = bootstrap_ratio(rng.binomial(words, hardness), words, resamples=300, seed=corpus)
        ratios += ratio.low <= 0.25 <= ratio.high
        mean = bootstrap_mean(rng.gamma(2.0, 1.5, 80), resamples=300, seed=corpus)
        means += mean.low <= 3.0 <= mean.high
    # a share of 0.95 in 200 has a standard error of 1.5 %; the bootstrap is known to be a little short
    assert 0.90 <= ratios / 200 <= 0.985 and 0.90 <= means / 200 <= 0.985
