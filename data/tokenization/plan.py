"""What goes where in a token dataset: rows into shards, the rows of a shard into batches.

A plan is a function of the corpus, the lengths of its recordings, the codec and the options. The lengths come from the
files' headers, which one process reads for all.
"""

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save

from codec import CodecInfo
from codec.foundation import Progress, UserError, rank, write_bytes
from data.audio import AudioInfo, audio_info
from data.config import TokenizeOptions
from data.corpora.utterance import Corpus, Utterance, Word
from data.decoding import AudioError
from data.sharded_directory import Shard

# Quarter hours, as long as they make no more files than this: a kill costs little on one machine, and a thousand
# processes still find work.
_SHARD_SECONDS = 900.0
_MOST_SHARDS = 1024

HEADERS = ".headers.safetensors"  # kept in the output directory until the dataset is whole
_READING = ".headers.reading"  # touched while they are being read
_THREADS = 16  # headers wait for the disk or for the network, not for the processor
_AT_ONCE = 1024  # calls waiting in the pool: tens of millions would fill the memory
_PATIENCE_SECONDS = 60.0


def identity(corpus: Corpus, codec: CodecInfo, options: TokenizeOptions) -> dict[str, Any]:
    """What must be the same for two runs to work on one dataset; it goes into the metadata."""
    return {"codec": codec.to_dict(), "corpus": corpus.identity(), "options": asdict(options)}


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
        # Recordings of unknown length are mostly broken. Each is alone, for it may be an hour long.
        lengths = np.where(lengths == 0, self.batch_samples, lengths)
        return [
            batch + shard.start for batch in length_batches(lengths, self.batch_samples, self.long_samples)
        ]

    def is_long(self, row: int) -> bool:
        return bool(self.samples[row] > self.long_samples)


def make_plan(
    corpus: Corpus, headers: Sequence[AudioInfo | None], codec: CodecInfo, options: TokenizeOptions
) -> Plan:
    """Lay out the dataset. `headers` belong to the corpus's utterances in order, None where unreadable."""
    rate = codec.sampling_rate
    variants = training_variants(options.speeds, options.shifts, codec.hop_length)
    if PLAIN not in variants:
        variants = [*variants, PLAIN]  # for the splits that are not for training
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
    """Cut rows, in order, into at most `shards` runs of about equal seconds: (runs + 1) row numbers from 0 on.

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


def read_headers(
    utterances: Sequence[Utterance], output: Path, identity: dict[str, Any]
) -> list[AudioInfo | None]:
    """The header of every recording in order, None where none can be read.

    The first process of a launch reads and shares them. The others wait while it shows signs of life; otherwise they
    read for themselves. All read the same, so it does not matter who writes.
    """
    path = output / HEADERS
    if rank() != 0:
        _wait_for(path, output / _READING)
    shared = _load(path, identity)
    if shared is not None:
        return shared
    headers: list[AudioInfo | None] = []
    with (
        _alive(output / _READING) as alive,
        Progress(total=len(utterances), unit="files", label="reading headers") as progress,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        for start in range(0, len(utterances), _AT_ONCE):
            found = list(pool.map(_header, utterances[start : start + _AT_ONCE]))
            headers += found
            progress.update(len(found))
            alive()
    begin(output, identity, headers)
    return headers


def begin(output: Path, identity: dict[str, Any], headers: Sequence[AudioInfo | None] = ()) -> None:
    """Say in a directory what is being made there."""
    rows = [(h.frames, h.sampling_rate, h.channels) if h else (0, 0, 0) for h in headers]
    table = torch.tensor(rows, dtype=torch.int64).reshape(-1, 3)
    about = {"identity": json.dumps(identity, sort_keys=True)}
    write_bytes(output / HEADERS, save({"headers": table}, metadata=about))


def _header(utterance: Utterance) -> AudioInfo | None:
    try:
        return audio_info(utterance.path)
    except AudioError:
        return None  # reading the audio finds and records the reason


@contextmanager
def _alive(path: Path) -> Iterator[Any]:
    """Yield a function; calling it shows others, every few seconds, that this process is at work."""
    last = 0.0

    def touch() -> None:
        nonlocal last
        if time.monotonic() - last > _PATIENCE_SECONDS / 20:
            last = time.monotonic()
            path.touch()

    try:
        yield touch
    finally:
        path.unlink(missing_ok=True)


def _wait_for(path: Path, sign: Path) -> None:
    seen: float | None = None
    since = time.monotonic()
    while not path.exists() and time.monotonic() - since < _PATIENCE_SECONDS:
        try:
            # Only a change counts: clocks of machines on one file system differ.
            if (touched := sign.stat().st_mtime) != seen:
                seen, since = touched, time.monotonic()
        except FileNotFoundError:
            pass
        time.sleep(0.2)


def _load(path: Path, identity: dict[str, Any]) -> list[AudioInfo | None] | None:
    """Headers that another process, or an earlier run, has read for the same dataset."""
    if not path.is_file():
        return None
    if stored_identity(path) != identity:
        raise UserError(
            f"{path.parent}: another tokenize run has begun there meanwhile: give another --output"
        )
    with safe_open(path, framework="pt") as file:
        rows = file.get_tensor("headers").tolist()
    return [AudioInfo(*row) if row[1] else None for row in rows]


def stored_identity(path: Path) -> dict[str, Any]:
    """The identity of the run that the headers were read for."""
    with safe_open(path, framework="pt") as file:
        return json.loads((file.metadata() or {})["identity"])
