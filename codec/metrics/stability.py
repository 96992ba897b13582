"""How much codes change under what a listener would not call another recording: shifts, gain, noise, resampling.

Unstable codes are hard to predict: the same sound has many names (compare Gat et al., arXiv 2209.15483, section 3).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from codec.foundation.random import generator
from codec.metrics.mel import resampled

SHIFTS = (0.25, 0.5, 0.75)  # of a frame
GAINS_DB = (-6.0, -12.0)
NOISE_DB = (30.0, 20.0)  # signal-to-noise ratios
RATES = (16_000, 44_100)  # Hz: there and back


@dataclass(frozen=True)
class Perturbation:
    """A change of a recording."""

    name: str
    apply: Callable[[Tensor, str], Tensor]  # (samples,), the recording's id -> (samples',)
    shifts: bool = False  # whether frames move, so that codes are to be aligned


@dataclass(frozen=True)
class StabilityShare:
    """What remains of the codes under a perturbation, over everything counted."""

    unchanged: float  # share of codes that are the same, place by place
    aligned: float | None  # 1 - edits / frames of the best alignment; None where nothing moves
    per_quantizer: list[float]  # `unchanged` of each
    frames: int


def perturbations(sampling_rate: int, hop_length: int) -> tuple[Perturbation, ...]:
    """What is tried on a codec.

    - shifts: the first quarter, half and three quarters of a frame are cut off
    - gain: 6 and 12 dB less
    - noise: white, 30 and 20 dB below the recording's mean power, the same for a recording whenever it is tried
    - resampling: to 16 kHz and back, to 44.1 kHz and back (the codec's own rate is left out)
    """
    shifts = [
        Perturbation(f"shift by {share:g} frame", _shift(round(share * hop_length)), shifts=True)
        for share in SHIFTS
    ]
    gains = [Perturbation(f"gain {decibels:g} dB", _gain(decibels)) for decibels in GAINS_DB]
    noises = [Perturbation(f"noise at {decibels:g} dB SNR", _noise(decibels)) for decibels in NOISE_DB]
    rates = [
        Perturbation(f"resampled to {rate / 1_000:g} kHz and back", _there_and_back(sampling_rate, rate))
        for rate in RATES
        if rate != sampling_rate
    ]
    return (*shifts, *gains, *noises, *rates)


class CodeStability:
    """Adds up, recording by recording, how many codes a perturbation leaves as they are."""

    def __init__(self, num_quantizers: int):
        self._same = np.zeros(num_quantizers)
        self._places = 0
        self._edits = np.zeros(num_quantizers)
        self._frames = 0
        self._aligned = False

    def update(self, before: Tensor, after: Tensor, align: bool = False) -> None:
        """Count codes (num_quantizers, frames) of a recording and (num_quantizers, frames') of the changed one.

        Place by place, the first min(frames, frames') are compared. With `align`, the fewest insertions, deletions and
        substitutions that turn the one stream of a quantizer into the other (Levenshtein) are counted too.
        """
        x, y = before.cpu().numpy(), after.cpu().numpy()
        places = min(x.shape[1], y.shape[1])
        self._same += (x[:, :places] == y[:, :places]).sum(axis=1)
        self._places += places
        if align:
            self._edits += edit_distances(x, y)
            self._frames += max(x.shape[1], y.shape[1])
            self._aligned = True

    def share(self) -> StabilityShare:
        """The result so far; NaN without frames."""
        per_quantizer = self._same / self._places if self._places else np.full(len(self._same), np.nan)
        aligned = None
        if self._aligned:
            aligned = float(1.0 - self._edits.mean() / self._frames) if self._frames else float("nan")
        return StabilityShare(float(per_quantizer.mean()), aligned, per_quantizer.tolist(), self._places)


def edit_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Levenshtein distances of the rows of (rows, frames) and (rows, frames') -> (rows,)."""
    places = np.arange(y.shape[1] + 1)
    costs = np.broadcast_to(places, (len(x), len(places))).copy()
    for frame in range(x.shape[1]):
        substituted = costs[:, :-1] + (y != x[:, frame : frame + 1])
        costs = costs + 1  # deleted
        costs[:, 1:] = np.minimum(costs[:, 1:], substituted)
        # insertions: the least of all cells to the left, plus the way from there
        costs = np.minimum.accumulate(costs - places, axis=1) + places
    return costs[:, -1]


def _shift(samples: int) -> Callable[[Tensor, str], Tensor]:
    return lambda waveform, _: waveform[samples:]


def _gain(decibels: float) -> Callable[[Tensor, str], Tensor]:
    return lambda waveform, _: waveform * 10.0 ** (decibels / 20.0)


def _noise(decibels: float) -> Callable[[Tensor, str], Tensor]:
    def apply(waveform: Tensor, identity: str) -> Tensor:
        noise = generator(0, "stability", identity).standard_normal(len(waveform), dtype=np.float32)
        level = waveform.square().mean().sqrt() * 10.0 ** (-decibels / 20.0)
        return waveform + level * torch.from_numpy(noise)

    return apply


def _there_and_back(sampling_rate: int, rate: int) -> Callable[[Tensor, str], Tensor]:
    def apply(waveform: Tensor, _: str) -> Tensor:
        back = resampled(resampled(waveform, sampling_rate, rate), rate, sampling_rate)
        missing = max(0, len(waveform) - len(back))
        return torch.nn.functional.pad(back, (0, missing))[: len(waveform)]

    return apply
