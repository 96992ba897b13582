"""STOI, PESQ, voicing: known values, orders that must hold, and what happens where they are not defined."""

import math
import sys

import numpy as np
import pytest
import torch

from codec.metrics import (
    WAVEFORM_METRICS,
    MissingDependency,
    compare_f0,
    pesq_wide_band,
    score_waveforms,
    stoi,
    usable_metrics,
    voicing,
)

RATE = 24_000


def babble(seconds: float, seed: int = 0, pitch: float = 120.0) -> torch.Tensor:
    """Something speech-like: a harmonic source in syllables of 0.35 s, 0.15 s apart, formants moving."""
    rng = np.random.default_rng(seed)
    times = np.arange(int(seconds * RATE)) / RATE
    source = sum(np.cos(2 * np.pi * pitch * k * times + k * k) / k for k in range(1, 40))
    syllable = (times % 0.5 < 0.35) * np.sin(np.pi * (times % 0.5) / 0.35) ** 2
    vowels = rng.uniform(0.2, 1.0, (int(seconds / 0.5) + 1, 8))[(times / 0.5).astype(int)]  # (samples, 8)
    colour = sum(vowels[:, k] * np.cos(2 * np.pi * 500 * k * times) for k in range(8)) / 8
    breath = 0.002 * rng.standard_normal(len(times))
    return torch.from_numpy(0.2 * source * syllable * (0.5 + colour) + breath).float()


def noisy(waveform: torch.Tensor, level: float) -> torch.Tensor:
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal(len(waveform))).float()
    return waveform + level * noise


def test_stoi_orders_noise_and_ignores_gain() -> None:
    pytest.importorskip("pystoi")
    speech = babble(3)
    assert stoi(speech, speech, RATE) == pytest.approx(1.0, abs=1e-6)
    little, much = stoi(speech, noisy(speech, 0.02), RATE), stoi(speech, noisy(speech, 0.3), RATE)
    assert 1 > little > much
    assert stoi(speech, 0.3 * noisy(speech, 0.02), RATE) == pytest.approx(little, abs=1e-5)
    assert stoi(speech, torch.cat([noisy(speech, 0.02), torch.ones(900)]), RATE) == pytest.approx(little)


def test_stoi_is_undefined_without_speech() -> None:
    pytest.importorskip("pystoi")
    speech = babble(3)
    assert math.isnan(stoi(torch.zeros(RATE), speech[:RATE], RATE))
    assert math.isnan(stoi(speech[:5_000], speech[:5_000], RATE))
    assert math.isnan(stoi(speech[:100], speech[:100], RATE))


def test_pesq_has_its_known_best_and_orders_noise() -> None:
    pytest.importorskip("pesq")
    speech = babble(3)
    # P.862.2 maps a raw score of 4.5 to 0.999 + 4 / (1 + exp(-1.3669 * 4.5 + 3.8224))
    best = 0.999 + 4 / (1 + math.exp(-1.3669 * 4.5 + 3.8224))
    assert pesq_wide_band(speech, speech, RATE) == pytest.approx(best, abs=1e-3)
    little = pesq_wide_band(speech, noisy(speech, 0.005), RATE)
    much = pesq_wide_band(speech, noisy(speech, 0.1), RATE)
    assert best > little > much
    assert math.isnan(pesq_wide_band(torch.zeros(RATE), speech[:RATE], RATE))
    assert math.isnan(pesq_wide_band(speech[:2_000], speech[:2_000], RATE))


def test_long_recordings_do_not_bring_pesq_down() -> None:
    """Sixty stretches of speech at once crash the package's C code, and the process with it."""
    pytest.importorskip("pesq")
    stretch = torch.cat([babble(0.33), torch.zeros(RATE // 2)])
    speech = stretch.repeat(60)  # 50 s: three pieces of twenty stretches
    worse = noisy(speech, 0.003)
    pieces = zip(speech.chunk(3), worse.chunk(3), strict=True)
    expected = np.mean([pesq_wide_band(target, drawn, RATE) for target, drawn in pieces])
    assert pesq_wide_band(speech, worse, RATE) == pytest.approx(expected, abs=0.02)


def test_voicing_of_hand_made_tracks() -> None:
    reference = np.array([0, 100, 100, 100, 100, 0.0])
    estimate = np.array([90, 100, 103, 0, 97, 0.0])
    score = compare_f0(reference, estimate)
    assert (score.precision, score.recall, score.f1) == (3 / 4, 3 / 4, 3 / 4)
    assert score.f0_rmse_hz == pytest.approx(math.sqrt((0 + 9 + 9) / 3))
    cents = [0, 1_200 * math.log2(1.03), 1_200 * math.log2(0.97)]
    assert score.f0_rmse_cents == pytest.approx(math.sqrt(sum(c * c for c in cents) / 3))
    nothing = compare_f0(np.zeros(4), np.zeros(4))
    assert math.isnan(nothing.f1) and math.isnan(nothing.f0_rmse_hz)
    assert compare_f0(reference, np.zeros(6)).f1 == 0


def test_voicing_hears_pitch_and_pauses() -> None:
    pytest.importorskip("pyworld")
    speech, higher = babble(2), babble(2, pitch=120.0 * 2 ** (1 / 12))
    same = voicing(speech, speech, RATE)
    assert same.f1 == 1 and same.f0_rmse_hz == 0
    semitone = voicing(speech, higher, RATE)
    assert semitone.f0_rmse_cents == pytest.approx(100, abs=8)
    assert semitone.f1 > 0.9
    whisper = torch.from_numpy(np.random.default_rng(2).standard_normal(2 * RATE)).float() * 0.1
    assert not voicing(speech, whisper, RATE).f1 > 0.6


def test_a_missing_package_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pystoi", None)  # as if it were not installed
    for package in ("pesq", "distillmos"):
        monkeypatch.setitem(sys.modules, package, None)
    usable = usable_metrics()
    assert set(usable.skipped) == {"stoi", "pesq", "distillmos"}
    assert "pystoi" in usable.skipped["stoi"] and "pip install 'codec-slm[eval]'" in usable.skipped["stoi"]
    assert [metric.name for metric in usable.metrics] == [
        "log_mel_l1",
        "multi_resolution_stft",
        "voicing",
        "prosody",
        "dnsmos",
    ]
    with pytest.raises(MissingDependency, match="pystoi"):
        stoi(torch.zeros(8), torch.zeros(8), RATE)


def test_the_table_holds_every_column() -> None:
    usable = usable_metrics(WAVEFORM_METRICS[:2])
    row = score_waveforms(babble(1), noisy(babble(1), 0.1), RATE, usable.metrics)
    assert list(row) == [column.key for column in usable.columns]
    assert score_waveforms(None, babble(1), RATE, usable.metrics) == {}  # there is nothing to compare with
