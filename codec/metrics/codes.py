"""What codes are like: use of the codebooks, information about labels, stability under small changes.

Information: counting code and label together overestimates their mutual information wherever codes are rare, and more
for larger codebooks. Here P(label | code) is learned on some utterances and tried on the others. The bits by which it
beats P(label) are a lower bound of the mutual information, on average (predictive V-information, arXiv 2002.10689).

Stability: unstable codes are hard to predict, for the same sound has many names (compare Gat et al., arXiv 2209.15483,
section 3).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from codec.foundation.random import generator
from codec.metrics.intervals import Interval, bootstrap_ratio, wilson_interval
from codec.metrics.spectral import resampled

_STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # of the prior, in frames a code
SHIFTS = (0.25, 0.5, 0.75)  # of a frame
GAINS_DB = (-6.0, -12.0)
NOISE_DB = (30.0, 20.0)  # signal-to-noise ratios
RATES = (16_000, 44_100)  # Hz: there and back


@dataclass(frozen=True)
class CodebookStatistics:
    """One codebook's use over everything counted."""

    size: int
    frames: int
    used: int  # codes seen at least once
    entropy_bits: float  # of the code distribution, per code; at most log2(size)
    perplexity: float  # 2 ** entropy_bits: as many equally frequent codes would carry the same

    @property
    def nominal_bits(self) -> float:
        """Bits that a code takes when it is stored without modelling: log2(size)."""
        return math.log2(self.size)


class CodebookUse:
    """Counts codes of every quantizer; feed it streams, then ask.

    Args:
        codebook_sizes: codes of each quantizer.
    """

    def __init__(self, codebook_sizes: list[int] | tuple[int, ...]):
        self.counts = [np.zeros(size, dtype=np.int64) for size in codebook_sizes]

    def update(self, codes: Tensor | np.ndarray) -> None:
        """Count the codes (num_quantizers, frames) of one utterance; padding must be cut off before."""
        codes = codes.detach().cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes)
        if codes.ndim != 2 or len(codes) != len(self.counts):
            raise ValueError(f"codes are (num_quantizers={len(self.counts)}, frames), not {codes.shape}")
        for quantizer, (row, counts) in enumerate(zip(codes, self.counts, strict=True)):
            if row.size and (row.min() < 0 or row.max() >= len(counts)):
                raise ValueError(
                    f"quantizer {quantizer} has {len(counts)} codes; "
                    f"these run from {int(row.min())} to {int(row.max())}"
                )
            counts += np.bincount(row, minlength=len(counts))

    def statistics(self) -> list[CodebookStatistics]:
        """One entry a quantizer."""
        return [_statistics(counts) for counts in self.counts]

    def nominal_bitrate(self, frame_rate: float) -> float:
        """Bits a second with every code stored in log2(size) bits; `frame_rate` in frames a second."""
        return frame_rate * sum(s.nominal_bits for s in self.statistics())

    def entropy_bitrate(self, frame_rate: float) -> float:
        """Bits a second that an ideal memoryless coder of the counted codes would need."""
        return frame_rate * sum(s.entropy_bits for s in self.statistics())


def _statistics(counts: np.ndarray) -> CodebookStatistics:
    frames = int(counts.sum())
    seen = counts[counts > 0]
    share = seen / max(frames, 1)
    entropy = float(-(share * np.log2(share)).sum()) + 0.0  # + 0.0: a lone code's entropy is 0, not -0
    return CodebookStatistics(len(counts), frames, len(seen), entropy, 2.0**entropy)


@dataclass(frozen=True)
class Information:
    """What codes say of labels."""

    bits: Interval  # a frame, held out
    label_bits: float  # entropy of the labels, a frame: what could be said at most
    frames: int
    utterances: int

    @property
    def share(self) -> float:
        """Of the labels' entropy."""
        return self.bits.value / self.label_bits if self.label_bits else float("nan")


@dataclass(frozen=True)
class Classification:
    """Utterances whose label their codes tell, each code by itself (naive Bayes)."""

    accuracy: Interval  # held out
    chance: float  # share of the commonest label
    utterances: int


def predictive_information(
    codes: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    num_codes: int,
    num_labels: int,
    folds: int = 5,
    seed: int = 0,
) -> Information:
    """Bits that a code gives of its frame's label.

    codes, labels: (frames,) int arrays, one each an utterance; utterances are dealt into `folds`, and each fold is
    tried with what the others teach. Raises ValueError for fewer utterances than folds, and for unequal lengths.
    """
    _check(codes, labels, folds)
    gained, frames = np.zeros(len(codes)), np.array([len(row) for row in codes])
    for inside, outside in _splits(len(codes), folds, seed):
        counts = _count(codes, labels, inside, num_codes, num_labels)
        prior = _shares(counts)
        bits = np.log2(_conditional(counts, prior)) - np.log2(prior)  # (codes, labels)
        for number in outside:
            gained[number] = bits[codes[number], labels[number]].sum()
    share = _shares(_count(codes, labels, range(len(codes)), 1, num_labels), smoothing=0.0)
    return Information(
        bits=bootstrap_ratio(gained, frames),
        label_bits=float(-(share[share > 0] * np.log2(share[share > 0])).sum()),
        frames=int(frames.sum()),
        utterances=len(codes),
    )


def naive_bayes(
    codes: Sequence[np.ndarray],
    labels: Sequence[int],
    num_codes: int,
    num_labels: int,
    folds: int = 5,
    seed: int = 0,
) -> Classification:
    """How often the codes of an utterance, (frames,) each, tell its label. Errors as `predictive_information`."""
    frames = [np.full(len(row), label) for row, label in zip(codes, labels, strict=True)]
    _check(codes, frames, folds)
    right = 0
    for inside, outside in _splits(len(codes), folds, seed):
        # here the code is what is drawn, given the label
        counts = _count(frames, codes, inside, num_labels, num_codes)
        likelihood = np.log(_conditional(counts, _shares(counts)))  # (labels, codes)
        own = np.bincount([labels[number] for number in inside], minlength=num_labels)
        with np.errstate(divide="ignore"):
            before = np.log(own / own.sum())
        for number in outside:
            right += int(np.argmax(before + likelihood[:, codes[number]].sum(axis=1)) == labels[number])
    commonest = float(np.bincount(labels).max())
    return Classification(wilson_interval(right, len(codes)), commonest / len(labels), len(codes))


def _check(codes: Sequence[np.ndarray], labels: Sequence[np.ndarray], folds: int) -> None:
    if folds < 2 or len(codes) < folds:
        raise ValueError(f"{len(codes)} utterances cannot be dealt into {folds} folds: 2 folds at least")
    for number, (row, own) in enumerate(zip(codes, labels, strict=True)):
        if row.shape != own.shape or row.ndim != 1:
            raise ValueError(
                f"utterance {number} has codes {row.shape} and labels {own.shape}: (frames,) both"
            )


def _splits(count: int, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Utterances to learn from and to try, fold by fold."""
    fold = generator(seed, "folds").permutation(count) % folds
    return [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(folds)]


def _count(
    codes: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    chosen: Sequence[int] | np.ndarray,
    num_codes: int,
    num_labels: int,
) -> np.ndarray:
    """(codes, labels) how often they come together; a codebook of one code counts labels alone."""
    together = np.zeros(num_codes * num_labels, dtype=np.int64)
    for number in chosen:
        place = codes[number].astype(np.int64) if num_codes > 1 else 0
        together += np.bincount(place * num_labels + labels[number], minlength=len(together))
    return together.reshape(num_codes, num_labels).astype(float)


def _shares(counts: np.ndarray, smoothing: float = 1.0) -> np.ndarray:
    """(labels,) from counts (codes, labels)."""
    summed = counts.sum(axis=0) + smoothing
    return summed / max(summed.sum(), 1.0)


def _conditional(counts: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """(codes, labels) -> P(label | code), drawn to the prior as strongly as suits frames left out one by one."""
    total = counts.sum(axis=1, keepdims=True)

    def left_out(strength: float) -> float:
        # each frame by a model of all others
        chance = (np.maximum(counts - 1.0, 0.0) + strength * prior) / (
            np.maximum(total - 1.0, 0.0) + strength
        )
        return float((counts * np.log(chance)).sum())

    strength = max(_STRENGTHS, key=left_out)
    return (counts + strength * prior) / (total + strength)


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


class StabilityTrial:
    """Codes changed versions of recordings and counts what remains of the codes.

    Args:
        sampling_rate, hop_length, num_quantizers: of the codec.
    """

    def __init__(self, sampling_rate: int, hop_length: int, num_quantizers: int):
        self._perturbations = perturbations(sampling_rate, hop_length)
        self._counts = [CodeStability(num_quantizers) for _ in self._perturbations]
        self.utterances = 0

    def update(
        self, encode: Callable[[Tensor], Tensor], waveform: Tensor, codes: Tensor, identity: str
    ) -> None:
        """Try all on one recording (samples,), whose codes (num_quantizers, frames) are known."""
        self.utterances += 1
        for perturbation, count in zip(self._perturbations, self._counts, strict=True):
            changed = perturbation.apply(waveform, identity)
            if len(changed):  # of a recording below a frame a shift may leave nothing
                count.update(codes, encode(changed), align=perturbation.shifts)

    @property
    def shares(self) -> dict[str, StabilityShare]:
        """By perturbation; empty where nothing was tried."""
        if not self.utterances:
            return {}
        return {
            perturbation.name: count.share()
            for perturbation, count in zip(self._perturbations, self._counts, strict=True)
        }


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
