"""Resampling in blocks gives what torchaudio gives for the whole, at any pair of rates, in little memory."""

import math

import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from data.audio import Resampler, ResamplingKernel

RATES = [(44100, 24000), (48000, 24000), (16000, 24000), (192000, 24000), (22050, 16000), (8000, 24000)]


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(samples, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def whole(waveform: torch.Tensor, orig: int, new: int) -> torch.Tensor:
    resampler = Resampler(orig, new)
    return torch.cat([resampler.push(waveform), resampler.finish()])


@pytest.mark.parametrize(("orig", "new"), RATES)
def test_equals_torchaudio(orig: int, new: int) -> None:
    waveform = noise(orig // 2 + 17)
    expected = torchaudio.transforms.Resample(orig, new)(waveform)
    torch.testing.assert_close(whole(waveform, orig, new), expected, rtol=0, atol=1e-6)


@settings(max_examples=25)
@given(
    rates=st.sampled_from([*RATES, (24000, 24000), (44101, 24000), (24000, 23999), (1000, 24000)]),
    lengths=st.lists(st.integers(0, 9000), min_size=1, max_size=12),
)
def test_blocks_equal_the_whole(rates: tuple[int, int], lengths: list[int]) -> None:
    waveform = noise(sum(lengths))
    resampler = Resampler(*rates)
    parts = [resampler.push(block) for block in waveform.split(lengths)]
    joined = torch.cat([*parts, resampler.finish()])
    assert len(joined) == math.ceil(len(waveform) * rates[1] / rates[0])
    torch.testing.assert_close(joined, whole(waveform, *rates), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("orig", "new"), [(44101, 24000), (8001, 24000), (192001, 24000)])
def test_rates_without_a_common_divisor(orig: int, new: int) -> None:
    """Against the formula itself, in float64; torchaudio would need gigabytes for such a kernel."""
    waveform = noise(orig + orig // 3)
    output = whole(waveform, orig, new)
    kernel = ResamplingKernel(orig, new)
    assert kernel._filters is not None and kernel._filters.numel() < 2**24
    cutoff = 0.99 * min(orig, new) / orig
    for j in [0, 1, 777, new - 1, new, new + 5, len(output) - 1]:
        t = ((np.arange(len(waveform)) - j * orig / new) * cutoff).clip(-6, 6)
        weights = np.sinc(t) * np.cos(np.pi * t / 12) ** 2 * cutoff
        assert abs(float(output[j]) - float(weights @ waveform.double().numpy())) < 1e-6
