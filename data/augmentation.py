"""Augmentation of training segments: speed, rooms, band limits, levels and noise.

Functions of waveforms `(samples,)` float32 and of what was drawn; the draw is a function of a random generator.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
import torchaudio
from torch import Tensor

from data.config import Augmentation

T = TypeVar("T")
Colour = Literal["white", "pink", "babble"]
COLOURS: tuple[Colour, ...] = ("white", "pink", "babble")

_DIRECT_TO_REVERBERANT_DB = (0.0, 12.0)
_BAND_EDGE = 0.05
"""Share of the limit over which a band limit falls from one to zero."""


@dataclass(frozen=True)
class Drawn:
    """The changes of one segment; None, 1.0 and 0 dB change nothing."""

    speed: float
    rt60: float | None  # seconds
    direct_db: float
    band: float | None  # Hz
    level_db: float
    snr_db: float | None
    colour: Colour
    seed: int  # of the noise and of the room

    def source_samples(self, samples: int) -> int:
        """Length of the recording that becomes `samples` samples."""
        return math.ceil(samples * self.speed)

    def change(self, waveform: Tensor, sampling_rate: int) -> Tensor:
        """The target: (samples,) -> (samples / speed,) without noise."""
        random = np.random.default_rng([self.seed, 0])
        waveform = at_speed(waveform, self.speed)
        if self.rt60 is not None:
            waveform = reverberated(waveform, room_response(self.rt60, self.direct_db, sampling_rate, random))
        if self.band is not None:
            waveform = band_limited(waveform, self.band, sampling_rate)
        return waveform * 10.0 ** (self.level_db / 20.0)

    def with_noise(self, clean: Tensor, voices: Callable[[np.random.Generator], Sequence[Tensor]]) -> Tensor:
        """The input: the target (samples,) with noise, if any was drawn. `voices` gives waveforms for babble."""
        if self.snr_db is None or not len(clean):
            return clean
        random = np.random.default_rng([self.seed, 1])
        if self.colour == "babble" and (others := voices(random)):
            noise = babble(others, len(clean))
        else:
            noise = coloured_noise(len(clean), 1.0 if self.colour == "pink" else 0.0, random)
        return with_noise(clean, noise, self.snr_db)


def draw(settings: Augmentation, random: np.random.Generator) -> Drawn:
    """The changes of one segment. Always the same draws, so one probability does not move the others."""
    chances = random.random(5)
    amounts = random.random(7)
    speed = 1.0 + settings.speed_range * (2.0 * amounts[0] - 1.0)
    return Drawn(
        speed=round(speed, 2) if chances[0] < settings.speed else 1.0,
        rt60=_between(settings.rt60, amounts[1]) if chances[1] < settings.reverb else None,
        direct_db=_between(_DIRECT_TO_REVERBERANT_DB, amounts[2]),
        band=_one(settings.band_limits, amounts[3]) if chances[2] < settings.band else None,
        level_db=_between(settings.level_db, amounts[4]) if chances[3] < settings.level else 0.0,
        snr_db=_between(settings.snr_db, amounts[5]) if chances[4] < settings.noise else None,
        colour=_one(COLOURS, amounts[6]),
        seed=int(random.integers(2**62)),
    )


def at_speed(waveform: Tensor, speed: float) -> Tensor:
    """(samples,) played `speed` times as fast, to a hundredth: (samples / speed,); pitch and formants move."""
    hundredths = round(100 * speed)
    if hundredths == 100 or not len(waveform):
        return waveform
    return torchaudio.functional.resample(waveform, hundredths, 100)


def room_response(rt60: float, direct_db: float, sampling_rate: int, random: np.random.Generator) -> Tensor:
    """A synthetic room: the direct sound, then noise whose energy falls by 60 dB in `rt60` seconds; (samples,).

    direct_db: energy of the direct sound over that of the rest.
    """
    time = np.arange(1, round(rt60 * sampling_rate)) / sampling_rate
    tail = random.standard_normal(len(time)) * 10.0 ** (-3.0 * time / rt60)
    tail *= 10.0 ** (-direct_db / 20.0) / max(1e-9, float(np.sqrt((tail**2).sum())))
    return torch.from_numpy(np.concatenate([[1.0], tail])).float()


def reverberated(waveform: Tensor, room: Tensor) -> Tensor:
    """(samples,) in a room, as loud as before; cut at the end."""
    if not len(waveform):
        return waveform
    length = len(waveform) + len(room) - 1
    wet = torch.fft.irfft(torch.fft.rfft(waveform, length) * torch.fft.rfft(room, length), length)
    wet = wet[: len(waveform)]
    return wet * (waveform.square().mean() / wet.square().mean().clamp_min(1e-20)).sqrt().clamp(max=4.0)


def band_limited(waveform: Tensor, limit: float, sampling_rate: int) -> Tensor:
    """(samples,) without frequencies above `limit` Hz; phases stay."""
    if not len(waveform) or limit >= sampling_rate / 2:
        return waveform
    spectrum = torch.fft.rfft(waveform)
    frequencies = torch.linspace(0.0, sampling_rate / 2, len(spectrum))
    passed = ((limit - frequencies) / (_BAND_EDGE * limit)).clamp(0.0, 1.0)  # 1 below, 0 at the limit
    return torch.fft.irfft(spectrum * (0.5 - 0.5 * torch.cos(math.pi * passed)), len(waveform))


def coloured_noise(samples: int, exponent: float, random: np.random.Generator) -> Tensor:
    """Noise (samples,) whose power falls as 1 / frequency ** exponent: 0 is white, 1 pink."""
    noise = torch.from_numpy(random.standard_normal(samples)).float()
    if exponent == 0.0:
        return noise
    spectrum = torch.fft.rfft(noise)
    bins = torch.arange(len(spectrum)).clamp_min(1).float()
    return torch.fft.irfft(spectrum * bins ** (-exponent / 2.0), samples)


def babble(voices: Sequence[Tensor], samples: int) -> Tensor:
    """Other people talking, each equally loud, repeated where they are shorter than `samples`; (samples,)."""
    mixed = torch.zeros(samples)
    for voice in voices:
        if len(voice) and voice.any():
            repeated = voice.repeat(math.ceil(samples / len(voice)))[:samples]
            mixed += repeated / repeated.square().mean().sqrt().clamp_min(1e-9)
    return mixed


def with_noise(waveform: Tensor, noise: Tensor, snr_db: float) -> Tensor:
    """(samples,) with noise `snr_db` below it, both in mean power; silence stays silent."""
    power, loudness = waveform.square().mean(), noise.square().mean()
    if not power or not loudness:
        return waveform
    return waveform + noise * (power / loudness).sqrt() * 10.0 ** (-snr_db / 20.0)


def _between(ends: tuple[float, float], share: float) -> float:
    return float(ends[0] + (ends[1] - ends[0]) * share)


def _one(choices: Sequence[T], share: float) -> T:
    return choices[min(int(share * len(choices)), len(choices) - 1)]
