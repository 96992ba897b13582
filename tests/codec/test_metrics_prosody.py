"""Prosody: spreads by hand, and of signals whose pitch and loudness are known."""

import math

import numpy as np
import pytest
import torch

from codec.metrics import prosody, sounding_seconds
from codec.metrics.prosody import levels, spread

RATE = 24_000


def voice(seconds: float, semitones: float = 0.0, decibels: float = 0.0) -> torch.Tensor:
    """Harmonics around 140 Hz whose pitch and level swing twice a second by so much to either side."""
    times = np.arange(int(seconds * RATE)) / RATE
    swing = np.sin(2 * np.pi * 2 * times)
    phase = 2 * np.pi * np.cumsum(140.0 * 2 ** (semitones * swing / 12)) / RATE
    source = sum(np.cos(k * phase + k * k) / k for k in range(1, 25))
    return torch.from_numpy(0.05 * source * 10 ** (decibels * swing / 20)).float()


def test_spread_by_hand() -> None:
    f0 = np.array([0.0, 100.0, 200.0, 0.0, 100.0, 200.0])
    found = spread(f0, np.array([-90.0, -30.0, -10.0, -90.0, -30.0, -10.0]))
    assert found.f0_semitones == pytest.approx(6.0)  # an octave apart: six to either side of the mean
    assert found.energy_range_db == pytest.approx(20.0)  # silence does not count
    assert math.isnan(spread(f0[:2], np.zeros(2)).f0_semitones)


def test_pitch_and_loudness_that_swing_by_a_known_amount() -> None:
    pytest.importorskip("pyworld")
    still, lively = prosody(voice(2.0), RATE), prosody(voice(2.0, semitones=4.0), RATE)
    assert still.f0_semitones == pytest.approx(0.0, abs=0.1)
    assert lively.f0_semitones == pytest.approx(4.0 / math.sqrt(2), rel=0.05)  # of a sine
    loud = prosody(voice(2.0, decibels=10.0), RATE)
    # 5th to 95th percentile of a sine between -10 and 10 dB
    assert loud.energy_range_db == pytest.approx(20.0 * math.cos(math.pi * 0.05), abs=1.0)
    assert prosody(0.1 * voice(2.0, decibels=10.0), RATE).energy_range_db == pytest.approx(
        loud.energy_range_db, abs=0.3
    )
    for nothing in (torch.zeros(0), torch.zeros(100), torch.zeros(RATE)):
        assert math.isnan(prosody(nothing, RATE).f0_semitones)


def test_levels_are_root_mean_squares() -> None:
    waveform = torch.randn(5_000, generator=torch.Generator().manual_seed(0))
    found = levels(waveform, RATE, 0.005, 40)
    for frame in (7, 20, 33):
        window = waveform[frame * 120 - 300 : frame * 120 + 300].double()
        assert found[frame] == pytest.approx(10 * math.log10(float((window**2).mean())), abs=1e-6)


def test_silence_around_speech_does_not_count() -> None:
    sound = voice(1.0)
    padded = torch.cat([torch.zeros(RATE), sound, torch.zeros(RATE // 2), sound, torch.zeros(2 * RATE)])
    noise = 1e-4 * torch.randn(len(padded), generator=torch.Generator().manual_seed(0))
    assert sounding_seconds(padded, RATE) == pytest.approx(2.5, abs=0.03)
    assert sounding_seconds(padded + noise, RATE) == pytest.approx(2.5, abs=0.03)
    assert sounding_seconds(sound, RATE) == pytest.approx(1.0, abs=0.01)
    assert sounding_seconds(torch.zeros(RATE), RATE) == sounding_seconds(torch.zeros(0), RATE) == 0.0
