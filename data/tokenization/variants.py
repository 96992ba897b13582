"""One recording encoded in several ways: more tokens of the same words, as small corpora need."""

from collections.abc import Sequence
from dataclasses import dataclass

from codec.foundation import UserError
from data.corpora import Word


@dataclass(frozen=True)
class Variant:
    """How a recording is played before it is encoded.

    `speed` changes tempo and pitch together (by resampling); then `skip` samples, less than a frame, are
    left out at the beginning, so that the codec's frames fall elsewhere.
    """

    speed: float = 1.0
    skip: int = 0

    @property
    def suffix(self) -> str:
        """What it adds to a row's id: nothing for the recording as it is."""
        speed = f"@speed{self.speed:g}" if self.speed != 1.0 else ""
        return speed + (f"@shift{self.skip}" if self.skip else "")

    def words(self, words: Sequence[Word] | None, sampling_rate: int) -> list[Word] | None:
        """Word times of the variant from those of the recording."""
        if words is None:
            return None
        shift = self.skip / sampling_rate

        def moved(seconds: float | None) -> float | None:
            return None if seconds is None else max(0.0, seconds / self.speed - shift)

        return [Word(word, moved(start), moved(end)) for word, start, end in words]


PLAIN = Variant()


def training_variants(speeds: Sequence[float], shifts: int, hop_length: int) -> list[Variant]:
    """Every speed with every one of `shifts` evenly spaced sub-frame shifts. Raises UserError."""
    if not speeds or len(set(speeds)) != len(speeds) or not all(0.5 <= speed <= 2.0 for speed in speeds):
        raise UserError(f"speeds are {list(speeds)}: expected different numbers from 0.5 to 2")
    if not 1 <= shifts <= hop_length:
        raise UserError(f"shifts is {shifts}: expected 1 (none) to {hop_length}, the samples of a frame")
    return [Variant(speed, k * hop_length // shifts) for speed in speeds for k in range(shifts)]
