"""Pitch and loudness: agreement of voicing and F0 with a recording, spread of a recording by itself, its length."""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from codec.metrics.metric import require
from codec.metrics.spectral import check_pair

FRAME_MILLISECONDS = 5.0
_WINDOW_SECONDS = 0.025  # of a level
_QUIET_DB = 40.0  # below the loudest, there is no speech
_FLOOR_DB = -120.0
_SHORTEST_SECONDS = 0.1  # below, DIO has too little to filter


@dataclass(frozen=True)
class VoicingScore:
    """Agreement of the estimate's voicing and F0 with the reference's, frame by frame."""

    f1: float  # of "voiced"; NaN where neither is voiced anywhere
    precision: float
    recall: float
    f0_rmse_hz: float  # over frames voiced in both; NaN where there are none
    f0_rmse_cents: float


def voicing(reference: Tensor, estimate: Tensor, sampling_rate: int) -> VoicingScore:
    """Compare two waveforms (samples,) every 5 ms; what the estimate has beyond the reference is cut.

    DIO and not Harvest, which calls 80 to 98 % of the frames of read sentences voiced, pauses included (DIO:
    55 to 85 %), and is twenty times slower. Raises MissingDependency without pyworld.
    """
    check_pair(reference, estimate)
    return compare_f0(f0_track(reference, sampling_rate), f0_track(estimate[: len(reference)], sampling_rate))


def f0_track(waveform: Tensor, sampling_rate: int) -> np.ndarray:
    """F0 in Hz, one value every 5 ms, 0 where unvoiced."""
    world = require("pyworld", "the voiced/unvoiced F1")
    samples = waveform.detach().cpu().double().numpy()
    coarse, times = world.dio(samples, sampling_rate, frame_period=FRAME_MILLISECONDS)
    return world.stonemask(samples, coarse, times, sampling_rate)


def compare_f0(reference: np.ndarray, estimate: np.ndarray) -> VoicingScore:
    """Score two F0 tracks of equal length (Hz, 0 where unvoiced)."""
    voiced, called = reference > 0, estimate > 0
    both = voiced & called
    hits = int(both.sum())
    precision = _ratio(hits, int(called.sum()))
    recall = _ratio(hits, int(voiced.sum()))
    f1 = _ratio(2 * hits, int(called.sum()) + int(voiced.sum()))
    if not hits:
        return VoicingScore(f1, precision, recall, float("nan"), float("nan"))
    hertz = estimate[both] - reference[both]
    cents = 1_200.0 * np.log2(estimate[both] / reference[both])
    return VoicingScore(
        f1, precision, recall, math.sqrt(float(np.mean(hertz**2))), math.sqrt(float(np.mean(cents**2)))
    )


@dataclass(frozen=True)
class ProsodySpread:
    """Read aloud without interest, speech has little of both."""

    f0_semitones: float  # standard deviation of F0 over voiced frames; NaN where fewer than two are voiced
    energy_range_db: (
        float  # between the 5th and the 95th percentile of the level of voiced frames; NaN likewise
    )


def prosody(waveform: Tensor, sampling_rate: int) -> ProsodySpread:
    """Pitch and loudness of (samples,) every 5 ms, where voiced (DIO and StoneMask); gain changes nothing.

    Raises MissingDependency without pyworld.
    """
    if len(waveform) < _SHORTEST_SECONDS * sampling_rate:
        return ProsodySpread(float("nan"), float("nan"))
    f0 = f0_track(waveform, sampling_rate)
    return spread(f0, levels(waveform, sampling_rate, FRAME_MILLISECONDS / 1_000.0, len(f0)))


def spread(f0: np.ndarray, decibels: np.ndarray) -> ProsodySpread:
    """Of an F0 track (Hz, 0 where unvoiced) and the levels (dB) of the same frames."""
    voiced = f0 > 0
    if voiced.sum() < 2:
        return ProsodySpread(float("nan"), float("nan"))
    semitones = 12.0 * np.log2(f0[voiced])
    low, high = np.percentile(decibels[voiced], (5, 95))
    return ProsodySpread(float(semitones.std()), float(high - low))


def levels(waveform: Tensor, sampling_rate: int, frame_seconds: float, frames: int) -> np.ndarray:
    """Root mean square over 25 ms around every frame, in dB of full scale, -120 at least, (frames,).

    Frame k is centred at k * `frame_seconds`; beyond the ends of (samples,) there is silence.
    """
    samples = waveform.detach().cpu().double().numpy()
    half = max(1, round(_WINDOW_SECONDS * sampling_rate / 2))
    power = np.concatenate([[0.0], np.cumsum(samples**2)])
    centres = np.round(np.arange(frames) * frame_seconds * sampling_rate).astype(np.int64)
    first, last = (np.clip(centres + offset, 0, len(samples)) for offset in (-half, half))
    mean = np.maximum(power[last] - power[first], 0.0) / (2 * half)
    return 10.0 * np.log10(np.maximum(mean, 10.0 ** (_FLOOR_DB / 10.0)))


def sounding_seconds(waveform: Tensor, sampling_rate: int) -> float:
    """Seconds of (samples,) from the first to the last frame within 40 dB of the loudest: silence around is left out.

    0 for digital silence, and for nothing at all.
    """
    if not len(waveform):
        return 0.0
    step = FRAME_MILLISECONDS / 1_000.0
    decibels = levels(waveform, sampling_rate, step, int(len(waveform) / sampling_rate / step) + 1)
    if decibels.max() <= _FLOOR_DB:
        return 0.0
    (heard,) = np.nonzero(decibels >= decibels.max() - _QUIET_DB)
    return min(len(waveform) / sampling_rate, float(heard[-1] - heard[0] + 1) * step)


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else float("nan")
