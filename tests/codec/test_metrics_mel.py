"""Log-mel L1 and STFT distance against slow computations and closed forms."""

import math

import numpy as np
import pytest
import torch

from codec.metrics import decoded_mel_l1, log_mel, log_mel_l1, multi_resolution_stft


def slaney_hz(mel: np.ndarray) -> np.ndarray:
    """Slaney's scale: 3 mel = 200 Hz up to 1 kHz, then 27 mel = a factor of 6.4."""
    return np.where(mel < 15, 200 / 3 * mel, 1_000 * 6.4 ** ((mel - 15) / 27))


def slow_log_mel(samples: np.ndarray) -> np.ndarray:
    """The definition of recipes, frame by frame and band by band: (frames, 100)."""
    top = 15 + 27 * math.log(12_000 / 1_000) / math.log(6.4)
    edges = slaney_hz(np.linspace(0, top, 102))
    frequencies = np.arange(501) * 24.0
    padded = np.pad(samples, 375, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1_000) / 1_000)
    frames = []
    for start in range(0, len(padded) - 999, 250):
        magnitude = np.abs(np.fft.rfft(padded[start : start + 1_000] * window))
        bands = []
        for low, centre, high in zip(edges, edges[1:], edges[2:], strict=False):
            rise, fall = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
            triangle = np.maximum(0, np.minimum(rise, fall)) * 2 / (high - low)
            bands.append(np.log(max(magnitude @ triangle, 1e-5)))
        frames.append(bands)
    return np.array(frames)


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    reference = np.cumsum(rng.standard_normal(7_300)) * 0.01
    return torch.from_numpy(reference).float(), torch.from_numpy(
        reference + 0.05 * rng.standard_normal(7_300)
    ).float()


def test_log_mel_is_the_definition_of_recipes(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    fast = log_mel(pair[0]).numpy()
    slow = slow_log_mel(pair[0].double().numpy())
    assert fast.shape == slow.shape == (29, 100)  # frame m is centred at (m + 1/2) * 250: whole hops only
    np.testing.assert_allclose(fast, slow, atol=2e-3)  # float32 in near-empty bands
    assert abs(fast - slow).mean() < 1e-5


def test_log_mel_l1_is_the_mean_over_frames_and_bands(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    reference, estimate = pair
    slow = np.abs(slow_log_mel(reference.double().numpy()) - slow_log_mel(estimate.double().numpy())).mean()
    assert log_mel_l1(reference, estimate, 24_000) == pytest.approx(slow, abs=1e-5)
    assert log_mel_l1(reference, reference, 24_000) == 0
    # a gain of g moves every band above the floor by ln g
    assert log_mel_l1(reference, 2 * reference, 24_000) == pytest.approx(math.log(2), abs=0.01)


def test_what_a_codec_adds_behind_the_recording_does_not_count(
    pair: tuple[torch.Tensor, torch.Tensor],
) -> None:
    reference, estimate = pair
    longer = torch.cat([estimate, torch.randn(700)])
    assert log_mel_l1(reference, longer, 24_000) == log_mel_l1(reference, estimate, 24_000)
    mel = torch.cat([log_mel(estimate), torch.randn(3, 100)])
    assert decoded_mel_l1(reference, mel, 24_000) == pytest.approx(log_mel_l1(reference, estimate, 24_000))
    with pytest.raises(ValueError, match="the mel is"):
        decoded_mel_l1(reference, mel[:20], 24_000)
    with pytest.raises(ValueError, match="the reference 7300"):
        log_mel_l1(reference, estimate[:-1], 24_000)


def test_other_rates_are_measured_at_24_khz() -> None:
    times = torch.arange(48_000) / 48_000
    tone = torch.sin(2 * torch.pi * 440 * times)
    at_24 = torch.sin(2 * torch.pi * 440 * torch.arange(24_000) / 24_000)
    half = log_mel_l1(tone, 0.5 * tone, 48_000)
    assert half == pytest.approx(log_mel_l1(at_24, 0.5 * at_24, 24_000), rel=0.15)


def test_stft_distance_of_a_gain_is_known(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    reference, estimate = pair
    distance = multi_resolution_stft(reference, 3 * reference)
    assert distance.spectral_convergence == pytest.approx(2.0, rel=1e-6)
    assert distance.log_magnitude == pytest.approx(math.log(3), rel=1e-3)
    assert distance.total == distance.spectral_convergence + distance.log_magnitude
    assert multi_resolution_stft(reference, reference).total == 0
    assert 0 < multi_resolution_stft(reference, estimate).total < distance.total
