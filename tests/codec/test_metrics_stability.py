"""Stability of codes: counts by hand, edit distances against the textbook, and perturbations of known effect."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from codec.metrics.codes import CodeStability, edit_distances, perturbations

RATE, HOP = 24_000, 1_000


def textbook(x: list[int], y: list[int]) -> int:
    """Levenshtein, cell by cell."""
    table = [[i + j if i * j == 0 else 0 for j in range(len(y) + 1)] for i in range(len(x) + 1)]
    for i in range(1, len(x) + 1):
        for j in range(1, len(y) + 1):
            table[i][j] = min(
                table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (x[i - 1] != y[j - 1])
            )
    return table[-1][-1]


def test_edit_distance_is_the_textbooks() -> None:
    random = np.random.default_rng(0)
    for lengths in [(7, 7), (12, 5), (1, 9), (0, 3), (3, 0), (0, 0)]:
        x, y = (random.integers(0, 3, size=(4, length)) for length in lengths)
        expected = [textbook(a.tolist(), b.tolist()) for a, b in zip(x, y, strict=True)]
        assert edit_distances(x, y).tolist() == expected


def test_counts_by_hand() -> None:
    count = CodeStability(2)
    count.update(torch.tensor([[1, 2, 3, 4], [5, 5, 5, 5]]), torch.tensor([[1, 2, 9, 4], [5, 5, 5, 6]]))
    count.update(torch.tensor([[1, 1], [2, 2]]), torch.tensor([[1], [3]]))  # one place in common
    share = count.share()
    assert share.frames == 5 and share.per_quantizer == [4 / 5, 3 / 5]
    assert share.unchanged == pytest.approx(0.7) and share.aligned is None
    shifted = CodeStability(1)
    shifted.update(torch.tensor([[1, 2, 3, 4]]), torch.tensor([[2, 3, 4]]), align=True)
    assert shifted.share().unchanged == 0 and shifted.share().aligned == 3 / 4  # one code is deleted
    assert math.isnan(CodeStability(1).share().unchanged)


def levels(waveform: Tensor) -> Tensor:
    """(samples,) -> (1, frames): a code that says how loud a frame is, in steps of 1 dB."""
    padded = torch.nn.functional.pad(waveform, (0, -len(waveform) % HOP)).reshape(-1, HOP)
    return (20 * padded.square().mean(dim=1).clamp_min(1e-12).sqrt().log10()).round().long()[None]


def test_perturbations_do_what_they_say() -> None:
    generator = torch.Generator().manual_seed(0)
    # frames of very different loudness, so that no shift looks like another
    steps = torch.rand(20, generator=generator).repeat_interleave(HOP)
    waveform = steps * torch.sin(torch.arange(20 * HOP) * 0.3)
    tried = {p.name: p for p in perturbations(RATE, HOP)}
    assert len(tried) == 9 and sum(p.shifts for p in tried.values()) == 3
    assert torch.equal(tried["shift by 0.25 frame"].apply(waveform, "a"), waveform[250:])
    quieter = levels(tried["gain -6 dB"].apply(waveform, "a"))
    assert torch.equal(quieter, levels(waveform * 10 ** (-6 / 20)))
    noise = tried["noise at 20 dB SNR"].apply(waveform, "a") - waveform
    ratio = 10 * math.log10(float(waveform.square().mean() / noise.square().mean()))
    assert ratio == pytest.approx(20, abs=0.2)
    assert torch.equal(tried["noise at 20 dB SNR"].apply(waveform, "a") - waveform, noise)
    assert not torch.equal(tried["noise at 20 dB SNR"].apply(waveform, "b") - waveform, noise)
    for name in ("resampled to 16 kHz and back", "resampled to 44.1 kHz and back"):
        back = tried[name].apply(waveform, "a")
        assert back.shape == waveform.shape and (back - waveform)[500:-500].abs().mean() < 0.02
    assert len(perturbations(16_000, 320)) == 8  # not resampled to the rate that it has
