"""How much codes say of something else that is known of their frames: held-out mutual information.

Counting code and label together overestimates their mutual information wherever codes are rare, and more for larger
codebooks. Here P(label | code) is learned on some utterances and tried on the others: the bits by which it beats
P(label) are a lower bound of the mutual information, on average (predictive V-information, arXiv 2002.10689).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from codec.foundation.random import generator
from codec.metrics.intervals import Interval, bootstrap_ratio, wilson_interval

_STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # of the prior, in frames a code


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
