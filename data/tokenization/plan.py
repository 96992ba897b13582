"""What goes where in a token dataset: rows into shards, the rows of a shard into batches.

A plan is a function of the corpus, the lengths of its recordings, the codec and the options. It passes through the
lengths twice and keeps the bounds of the shards alone; what is in a shard is looked up when it is made.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise

import numpy as np

from codec import CodecInfo
from codec.foundation import UserError
from data.audio import resampled_length
from data.config import TokenizeOptions
from data.corpora.scanned import Manifest
from data.corpora.utterance import Utterance, Word
from data.decoding import AudioSource
from data.sharded_directory import Shard

# Quarter hours, as long as they make no more files than this: a kill costs little on one machine, and a thousand
# processes still find work.
_SHARD_SECONDS = 900.0
_MOST_SHARDS = 1024
_SUMMED_AT_ONCE = 2**20  # rows: the order in which floats are added is part of a plan


@dataclass(frozen=True)
class Variant:
    """One way to encode a recording: small corpora get more tokens of the same words.

    `speed` changes tempo and pitch together, by resampling. Then the first `skip` samples, less than a frame, are
    dropped, so that the codec's frames fall elsewhere.
    """

    speed: float = 1.0
    skip: int = 0

    @property
    def suffix(self) -> str:
        """What is added to a row's id; empty for the recording as it is."""
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


@dataclass(frozen=True)
class Request:
    """A batch to read."""

    shard: Shard
    rows: np.ndarray  # (batch,) numbers in the shard
    recordings: list[tuple[AudioSource, Variant]]  # of each row
    seconds: float  # as headers say
    long: bool  # one recording, to be read block by block
    last: bool  # of its shard


@dataclass(frozen=True)
class ShardRows:
    """The rows of a shard, in its order."""

    shard: Shard
    rows: Sequence[tuple[Utterance, Variant]]
    samples: np.ndarray  # (rows,) int64 at the codec's rate, as headers say; 0 where they say nothing

    def requests(self, plan: "Plan") -> Iterator[Request]:
        """Its batches."""
        # Recordings of unknown length are mostly broken. Each is alone, for it may be an hour long.
        lengths = np.where(self.samples == 0, plan.batch_samples, self.samples)
        batches = length_batches(lengths, plan.batch_samples, plan.long_samples)
        for number, batch in enumerate(batches):
            yield Request(
                self.shard,
                batch,
                [(utterance.path, variant) for utterance, variant in (self.rows[row] for row in batch)],
                float(self.samples[batch].sum()) / plan.sampling_rate,
                bool(self.samples[batch[0]] > plan.long_samples),
                number == len(batches) - 1,
            )


class Plan:
    """The shards of a token dataset: sorted by split, then by utterance, then by variant.

    shards: all of them
    seconds: of each shard, as headers say
    """

    def __init__(self, manifest: Manifest, splits: Sequence[str], codec: CodecInfo, options: TokenizeOptions):
        self.sampling_rate = codec.sampling_rate
        self.batch_samples = round(options.batch_seconds * codec.sampling_rate)
        self.long_samples = round(options.long_seconds * codec.sampling_rate)
        training = training_variants(options.speeds, options.shifts, codec.hop_length)
        self._manifest = manifest
        self._variants = {split: training if split == "train" else [PLAIN] for split in splits}
        self._first: dict[str, list[int]] = {}  # row with which each shard of the manifest begins
        self.shards: list[Shard] = []
        self.seconds: list[float] = []
        for split in splits:
            rows = _Seconds(partial(self._seconds, split), len(manifest.splits))
            bounds, seconds = shard_bounds(rows, options.shards if split == "train" else None)
            self._first[split] = [0, *accumulate(rows.counts)]
            self.shards += [
                Shard(split, number, len(bounds) - 1, start, stop)
                for number, (start, stop) in enumerate(pairwise(bounds))
            ]
            self.seconds += seconds

    def rows(self, shard: Shard) -> ShardRows:
        """What a shard holds, from those shards of the manifest that it touches."""
        first = self._first[shard.split]
        variants = self._variants[shard.split]
        rows: list[tuple[Utterance, Variant]] = []
        samples: list[np.ndarray] = []
        for number, (start, stop) in enumerate(pairwise(first)):
            if start < shard.stop and shard.start < stop:
                index, kind, lengths = self.lengths(number, shard.split)
                part = slice(max(0, shard.start - start), shard.stop - start)
                utterances = self._manifest.shard(number, shard.split)
                pairs = zip(index[part].tolist(), kind[part].tolist(), strict=True)
                rows += [(utterances[i], variants[k]) for i, k in pairs]
                samples.append(lengths[part])
        return ShardRows(shard, rows, np.concatenate(samples))

    def _seconds(self, split: str, number: int) -> np.ndarray:
        return self.lengths(number, split)[2] / self.sampling_rate

    def lengths(self, number: int, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Utterance, variant and samples, (rows,) int64 each, of a split's rows in a shard of the manifest."""
        nothing = np.zeros(0, dtype=np.int64)
        frames, rates = self._manifest.headers(number).get(split, (nothing, nothing))
        variants = self._variants[split]
        samples = np.zeros((len(frames), len(variants)), dtype=np.int64)
        for rate in np.unique(rates[rates > 0]).tolist():
            of_rate = rates == rate
            for column, variant in enumerate(variants):
                read = resampled_length(frames[of_rate], rate, self.sampling_rate, variant.speed)
                samples[of_rate, column] = read
        skips = np.array([variant.skip for variant in variants])
        samples -= skips
        index, kind = np.nonzero((samples > 0) | (skips == 0))  # a shift that leaves nothing makes no row
        return index, kind, np.maximum(samples[index, kind], 0)


class _Seconds:
    """Seconds of rows in arrays of `_SUMMED_AT_ONCE` or a little more, as often as one asks.

    of_shard: those of one of `shards` shards
    """

    def __init__(self, of_shard: Callable[[int], np.ndarray], shards: int) -> None:
        self._of_shard, self._shards = of_shard, shards
        self.counts: list[int] = []  # rows in each shard, when all have passed

    def __iter__(self) -> Iterator[np.ndarray]:
        self.counts = []
        pending: list[np.ndarray] = []
        for number in range(self._shards):
            pending.append(self._of_shard(number))
            self.counts.append(len(pending[-1]))
            if sum(map(len, pending)) >= _SUMMED_AT_ONCE or number + 1 == self._shards:
                yield np.concatenate(pending)
                pending = []


def default_shards(seconds: float) -> int:
    """How many files so much audio is kept in."""
    return min(_MOST_SHARDS, max(1, round(seconds / _SHARD_SECONDS)))


def shard_bounds(seconds: Iterable[np.ndarray], shards: int | None) -> tuple[list[int], list[float]]:
    """Cut rows, in order, into at most `shards` runs of about equal seconds: row numbers and the seconds of each run.

    There are (runs + 1) row numbers from 0 on. A run is never empty, so a row longer than a share leaves fewer runs.

    seconds: of the rows, in arrays (rows,) one after the other; they are asked for twice
    shards: by default as many as `default_shards` says
    """
    # A row belongs to the share in which its middle lies; a millisecond each spreads rows of unknown length.
    sums_of_blocks = [(float(block.sum()), float((block + 1e-3).sum())) for block in seconds]
    total = sum(weights for _, weights in sums_of_blocks)
    shards = shards or default_shards(sum(own for own, _ in sums_of_blocks))
    bounds, sums, counts = [0], np.zeros(shards), np.zeros(shards, dtype=np.int64)
    row, passed, former = 0, 0.0, None
    for block in seconds:
        if not len(block):
            continue
        weights = block + 1e-3
        ends = np.cumsum(np.concatenate([[passed], weights]))[1:]
        middle = ends - weights / 2
        share = np.minimum((middle * (shards / total)).astype(np.int64), shards - 1)
        before = share[0] if former is None else former
        bounds += (np.flatnonzero(np.diff(share, prepend=before)) + row).tolist()
        sums += np.bincount(share, block, shards)
        counts += np.bincount(share, minlength=shards)
        row, passed, former = row + len(block), float(ends[-1]), share[-1]
    return [*bounds, row] if row else bounds, sums[counts > 0].tolist()


def length_batches(lengths: np.ndarray, batch_samples: int, long_samples: int) -> list[np.ndarray]:
    """Batches of rows of like length, longest first: row numbers (batch,) each.

    The rows of a batch times its longest one are at most `batch_samples`, unless a batch is one row. Rows longer than
    `long_samples` are batches of their own.
    """
    order = np.argsort(-lengths, kind="stable")
    batches: list[np.ndarray] = []
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        count = 1 if longest > long_samples else max(1, batch_samples // longest)
        batches.append(order[start : start + count])
        start += count
    return batches
