"""Random numbers for millions of documents at once: a function of (seed, epoch, row, counter), in any order.

One key comes from `codec.foundation.generator`; from there on a number is a hash of its counters (SplitMix64:
Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014). A generator object
for each row would cost 30 us, a thousand times more than the number.
"""

import numpy as np

from codec.foundation import generator

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FACTOR_1 = np.uint64(0xBF58476D1CE4E5B9)
_FACTOR_2 = np.uint64(0x94D049BB133111EB)


class Draws:
    """The random numbers of one (seed, epoch)."""

    def __init__(self, seed: int, epoch: int):
        self._keys: dict[str, np.ndarray] = {}
        self._counters = (seed, epoch)

    def streams(self, purpose: str, keys: np.ndarray) -> np.ndarray:
        """One stream of random numbers for each key, (n,) uint64; see `numbers`."""
        if purpose not in self._keys:
            seed, epoch = self._counters
            self._keys[purpose] = generator(seed, "documents", purpose, epoch).integers(
                2**64, size=1, dtype=np.uint64
            )
        return _mix(np.asarray(keys, dtype=np.uint64) * _STEP + self._keys[purpose])


def numbers(streams: np.ndarray, counters: int | np.ndarray) -> np.ndarray:
    """The random 64-bit numbers at some counters of some streams (broadcast), uint64."""
    return _mix(streams + (np.atleast_1d(np.asarray(counters, dtype=np.uint64)) + np.uint64(1)) * _STEP)


def uniform(numbers: np.ndarray) -> np.ndarray:
    """Random numbers as float64 in [0, 1)."""
    return (numbers >> np.uint64(11)) * 2.0**-53


def below(numbers: np.ndarray, bound: int | np.ndarray) -> np.ndarray:
    """Random numbers as int64 in [0, bound), bound < 2**31; from their lower halves."""
    low = numbers & np.uint64(0xFFFFFFFF)
    return ((low * np.asarray(bound, dtype=np.uint64)) >> np.uint64(32)).astype(np.int64)


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * _FACTOR_1
    state = (state ^ (state >> np.uint64(27))) * _FACTOR_2
    return state ^ (state >> np.uint64(31))
