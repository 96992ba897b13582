"""From a corpus to a token dataset: sharded, resumable, on any number of processes."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from codec import CodecInfo
from codec.foundation import Progress, StopSignal, rank, world_size
from data.corpora import Corpus
from data.tokenization.directory import TokenDirectory
from data.tokenization.encoding import BatchEncoder
from data.tokenization.headers import read_headers
from data.tokenization.lanes import EncodedBatch, encode_batches
from data.tokenization.plan import Plan, Shard, TokenizeOptions, identity, make_plan
from data.tokenization.reading import BatchReader, Request
from data.tokenization.rows import TokenRow, parquet_bytes


@dataclass(frozen=True)
class TokenizeResult:
    """How far the dataset is when this process has done its part."""

    whole: bool  # False when stopped, or while other processes are still at work
    stopped: bool  # by a signal
    shards_left: int
    metadata: dict[str, Any] | None = None  # of the whole dataset

    def too_many_failures(self, max_failures: float) -> bool:
        """Whether more than this share of the whole dataset's rows could not be made."""
        if self.metadata is None:
            return False
        failures = self.metadata["failures"]
        return failures > max_failures * (self.metadata["rows"] + failures)


def tokenize_corpus(
    model: Any,
    corpus: Corpus,
    output: str | os.PathLike[str],
    options: TokenizeOptions | None = None,
    workers: int | None = None,
) -> TokenizeResult:
    """Encode a corpus with a codec into the token dataset at `output`.

    Process r of w (as the launcher says) makes shards r, r + w, ... and passes over those that exist, so a
    killed run is just started again, with any number of processes; the files do not depend on kills or
    processes. `workers` processes read audio for this one; unless given, a CPU's encoding threads read for
    themselves. What cannot be read goes to `failures.jsonl`.
    SIGTERM and Ctrl-C end it after the batch; finished shards stay.

    Raises UserError when `output` holds a dataset of another codec, corpus or options.
    """
    options = options or TokenizeOptions()
    encoder = BatchEncoder(model, options.precision)
    directory = TokenDirectory(output, identity(corpus, encoder.info, options))
    if directory.prepare():
        return TokenizeResult(True, False, 0, directory.metadata())
    headers = read_headers(corpus.utterances, directory.path, dict(directory.identity))
    plan = make_plan(corpus, headers, encoder.info, options)
    reader = BatchReader(corpus.utterances, plan, encoder.info.sampling_rate, options.gain)
    work = _Work(encoder, reader, corpus, plan, directory)
    with StopSignal() as stop:
        own = _own_order(plan.shards[rank() :: world_size()])
        _make_shards(work, own, workers, stop)
        whole = directory.finish(plan.shards)
    left = 0 if whole else sum(not directory.has(shard) for shard in plan.shards)
    return TokenizeResult(whole, stop.requested, left, directory.metadata() if whole else None)


def _own_order(shards: Sequence[Shard]) -> list[Shard]:
    """The shards from a random one on: processes started by hand, each as the only one, then share the
    work.
    """
    start = int.from_bytes(os.urandom(4), "little") % max(1, len(shards))
    return [*shards[start:], *shards[:start]]


@dataclass(frozen=True)
class _Work:
    """Everything that a shard is made from and with."""

    encoder: BatchEncoder
    reader: BatchReader
    corpus: Corpus
    plan: Plan
    directory: TokenDirectory


def _make_shards(work: _Work, shards: Sequence[Shard], workers: int | None, stop: StopSignal) -> None:
    """Encode and write the shards that are not there yet, in order, until asked to stop."""
    todo = [shard for shard in shards if not work.directory.has(shard)]
    if not todo:
        return
    seconds = work.plan.samples / work.encoder.info.sampling_rate
    total, left = (float(sum(seconds[s.start : s.stop].sum() for s in group)) for group in (shards, todo))
    requests = _Requests(work.plan, work.directory, todo)
    draft: _Draft | None = None
    with Progress(total, label="tokenizing", done_before=total - left) as progress:
        for encoded in encode_batches(work.encoder, work.reader, requests, workers):
            request = encoded.batch.request
            if draft is None or draft.shard != request.shard:
                draft = _Draft(request.shard, work.corpus, work.plan, work.encoder.info)
            draft.add(encoded)
            progress.update(float(seconds[request.rows].sum()))
            if request.last:
                work.directory.write_shard(draft.shard, *draft.finish())
                draft = None
            if stop.requested:
                return


class _Requests:
    """The batches of all shards in turn; a shard that another process finished meanwhile is passed over."""

    def __init__(self, plan: Plan, directory: TokenDirectory, shards: Sequence[Shard]) -> None:
        self._plan, self._directory, self._shards = plan, directory, shards

    def __iter__(self) -> Iterator[Request]:
        for shard in self._shards:
            if self._directory.has(shard):
                continue
            batches = self._plan.batches(shard)
            for number, rows in enumerate(batches):
                yield Request(shard, rows, last=number == len(batches) - 1)


class _Draft:
    """A shard in the making: rows come in the order of batches and leave in the order of the plan."""

    def __init__(self, shard: Shard, corpus: Corpus, plan: Plan, codec: CodecInfo) -> None:
        self.shard = shard
        self._corpus, self._plan, self._codec = corpus, plan, codec
        self._rows: dict[int, TokenRow] = {}
        self._failures: dict[int, str] = {}

    def add(self, encoded: EncodedBatch) -> None:
        batch = encoded.batch
        self._failures |= batch.failures
        for row, samples, stream in zip(batch.rows, batch.lengths, encoded.streams, strict=True):
            utterance = self._corpus.utterances[self._plan.utterance[row]]
            variant = self._plan.variants[self._plan.variant[row]]
            self._rows[row] = TokenRow(
                id=utterance.id + variant.suffix,
                codes=stream,
                seconds=samples / self._codec.sampling_rate,
                text=utterance.text,
                speaker=utterance.speaker,
                language=utterance.language,
                words=variant.words(utterance.words, self._codec.sampling_rate),
            )

    def finish(self) -> tuple[bytes, dict[str, Any]]:
        """The file's bytes, and what the dataset's metadata needs to know of it."""
        rows = [self._rows[number] for number in sorted(self._rows)]
        failures = [
            {
                "id": self._corpus.utterances[self._plan.utterance[number]].id
                + self._plan.variants[self._plan.variant[number]].suffix,
                "reason": self._failures[number],
            }
            for number in sorted(self._failures)
        ]
        return parquet_bytes(rows, self._codec), {
            "rows": len(rows),
            "frames": sum(len(row.codes) for row in rows) // self._codec.num_quantizers,
            "seconds": sum(row.seconds for row in rows),
            "usage": _usage(rows, self._codec),
            "failures": failures,
        }


def _usage(rows: Sequence[TokenRow], codec: CodecInfo) -> list[list[int]]:
    """How often each code of each quantizer occurs."""
    counts = [np.zeros(size, dtype=np.int64) for size in codec.codebook_sizes]
    for row in rows:
        for quantizer, count in enumerate(counts):
            count += np.bincount(row.codes[quantizer :: codec.num_quantizers], minlength=len(count))
    return [count.tolist() for count in counts]
