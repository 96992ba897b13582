"""What goes where: rows into shards, rows of a shard into batches. A function of the corpus and the options
alone.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from codec import CodecInfo
from codec.foundation import UserError
from data.audio import AudioInfo
from data.corpora import Corpus
from data.tokenization.variants import PLAIN, Variant, training_variants

# Quarter hours while that makes no more files than this: a kill costs little on one machine, and a thousand
# processes still find work.
_SHARD_SECONDS = 900.0
_MOST_SHARDS = 1024


@dataclass(frozen=True)
class TokenizeOptions:
    """All that decides the bytes of a token dataset, beside corpus and codec.

    shards: of the training split at most (others get as many for their length); by default a quarter hour
    each, up to
        1,024
    speeds, shifts: each training recording is encoded at every speed, with so many sub-frame shifts
    batch_seconds: audio in a batch, padding included
    long_seconds: recordings longer than this are encoded block by block, in bounded memory
    precision: of the encoder; in bfloat16 the codes of near ties differ from float32's
    gain: factor on every recording, for corpora far from the level that the codec was trained at
    source, licence: of the recordings, for the dataset's card
    """

    shards: int | None = None
    speeds: tuple[float, ...] = (1.0,)
    shifts: int = 1
    batch_seconds: float = 60.0
    long_seconds: float = 120.0
    precision: Literal["float32", "bfloat16"] = "float32"
    gain: float = 1.0
    source: str | None = None
    licence: str | None = None

    def __post_init__(self) -> None:
        if self.shards is not None and self.shards < 1:
            raise UserError(f"shards is {self.shards}: expected at least 1")
        if not (self.batch_seconds > 0 and self.long_seconds > 0):
            raise UserError("batch_seconds and long_seconds must be more than 0")
        if not 0 < self.gain < float("inf"):
            raise UserError(f"gain is {self.gain}: expected a factor above 0")
        if self.precision not in ("float32", "bfloat16"):
            raise UserError(f"unknown precision {self.precision!r}: choose float32 or bfloat16")


def identity(corpus: Corpus, codec: CodecInfo, options: TokenizeOptions) -> dict[str, Any]:
    """What must be the same for two runs to work on one dataset; goes into its metadata."""
    facts = {
        "codec": codec.to_dict(),
        "corpus": {
            "name": corpus.name,
            "format": corpus.format,
            "utterances": len(corpus.utterances),
            "hash": corpus.content_hash(),
        },
        "options": asdict(options),
    }
    return json.loads(json.dumps(facts))  # as it comes back from a file: lists for tuples


@dataclass(frozen=True)
class Shard:
    """One file of the dataset: the plan's rows [start, stop)."""

    split: str
    number: int  # within its split
    of: int
    start: int
    stop: int

    @property
    def file_name(self) -> str:
        return f"{self.split}-{self.number:05d}-of-{self.of:05d}.parquet"

    @property
    def rows(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Plan:
    """Rows in the order of the files: sorted by split, then by utterance, then by variant."""

    utterance: np.ndarray  # (rows,) int64 index into the corpus
    variant: np.ndarray  # (rows,) int64 index into `variants`
    samples: np.ndarray  # (rows,) int64 at the codec's rate, as headers say; 0 where they say nothing
    variants: Sequence[Variant]
    shards: Sequence[Shard]
    batch_samples: int
    long_samples: int

    def batches(self, shard: Shard) -> list[np.ndarray]:
        """Row numbers (batch,) of each batch of a shard."""
        lengths = self.samples[shard.start : shard.stop]
        # Mostly broken, but should one turn out to be an hour long, it had better be alone.
        lengths = np.where(lengths == 0, self.batch_samples, lengths)
        return [
            batch + shard.start for batch in length_batches(lengths, self.batch_samples, self.long_samples)
        ]

    def is_long(self, row: int) -> bool:
        return bool(self.samples[row] > self.long_samples)


def make_plan(
    corpus: Corpus, headers: Sequence[AudioInfo | None], codec: CodecInfo, options: TokenizeOptions
) -> Plan:
    """Lay out the dataset; `headers` are those of the corpus's utterances in order, None for unreadable
    ones.
    """
    rate = codec.sampling_rate
    variants = training_variants(options.speeds, options.shifts, codec.hop_length)
    if PLAIN not in variants:
        variants = [*variants, PLAIN]  # what other splits than training get
    training = range(len(options.speeds) * options.shifts)
    plain = [variants.index(PLAIN)]
    rows: list[tuple[int, int, int]] = []
    spans: list[tuple[str, int, int]] = []
    for split in corpus.splits:
        first = len(rows)
        for index, utterance in enumerate(corpus.utterances):
            if utterance.split == split:
                header = headers[index]
                rows += _rows(index, header, training if split == "train" else plain, variants, rate)
        spans.append((split, first, len(rows)))
    utterance, variant, samples = np.array(rows, dtype=np.int64).T
    shards: list[Shard] = []
    for split, first, last in spans:
        seconds = samples[first:last] / rate
        wanted = options.shards if split == "train" else None
        bounds = shard_bounds(seconds, wanted or default_shards(float(seconds.sum())))
        shards += [
            Shard(split, number, len(bounds) - 1, first + start, first + stop)
            for number, (start, stop) in enumerate(pairwise(bounds))
        ]
    return Plan(
        utterance,
        variant,
        samples,
        variants,
        shards,
        round(options.batch_seconds * rate),
        round(options.long_seconds * rate),
    )


def _rows(
    index: int, header: AudioInfo | None, kinds: Sequence[int], variants: Sequence[Variant], rate: int
) -> Iterator[tuple[int, int, int]]:
    """Utterance, variant and samples of an utterance's rows. A shift that leaves nothing makes no row."""
    for kind in kinds:
        variant = variants[kind]
        samples = (header.samples(rate, variant.speed) if header else 0) - variant.skip
        if samples > 0 or variant.skip == 0:
            yield index, kind, max(0, samples)


def default_shards(seconds: float) -> int:
    """How many files so much audio is kept in."""
    return min(_MOST_SHARDS, max(1, round(seconds / _SHARD_SECONDS)))


def shard_bounds(seconds: np.ndarray, shards: int) -> list[int]:
    """Cut rows, in order, into at most `shards` runs of about equal seconds: (runs + 1) row numbers from 0
    on.

    A run is never empty, so a row longer than a share leaves fewer runs.
    """
    if len(seconds) == 0:
        return [0]
    # A row belongs to the share in which its middle lies; a millisecond each spreads rows of unknown length.
    weights = seconds + 1e-3
    middle = np.cumsum(weights) - weights / 2
    share = np.minimum((middle * (shards / weights.sum())).astype(np.int64), shards - 1)
    return [0, *(np.flatnonzero(np.diff(share)) + 1).tolist(), len(seconds)]


def length_batches(lengths: np.ndarray, batch_samples: int, long_samples: int) -> list[np.ndarray]:
    """Batches of rows of like length, longest first: row numbers (batch,) each.

    A batch times its longest row is at most `batch_samples`, but one row is a batch at least. Rows longer
    than `long_samples` are batches of their own.
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
