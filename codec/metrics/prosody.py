"""How lively speech is, judged by itself: the spread of its pitch and of its loudness; and how long it sounds."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from codec.metrics.pitch import FRAME_MILLISECONDS, f0_track

_WINDOW_SECONDS = 0.025  # of a level
_QUIET_DB = 40.0  # below the loudest, there is no speech
_FLOOR_DB = -120.0
_SHORTEST_SECONDS = 0.1  # below, DIO has too little to filter


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
