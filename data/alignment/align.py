"""From a corpus to its word times: sharded, resumable, on any number of processes."""

import os
import random
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import Tensor

from codec.foundation import Progress, StopSignal, UserError, rank, world_size
from data.alignment.aligner import Aligner, AlignmentError
from data.alignment.stored import AlignedRow, AlignmentDirectory, AlignmentShard
from data.audio import AudioError, read_blocks
from data.corpora import Corpus, Utterance

_UTTERANCES_PER_SHARD = 512
_MOST_SHARDS = 1024
_BLOCK_SECONDS = 30.0
_READ_AHEAD = 4  # recordings a thread


@dataclass(frozen=True)
class AlignmentResult:
    """How far the alignment is when this process has done its part."""

    whole: bool  # False when stopped, or while other processes are still at work
    stopped: bool  # by a signal
    shards_left: int
    metadata: dict[str, Any] | None = None  # of the whole

    def too_many_failures(self, max_failures: float) -> bool:
        """Whether more than this share of the utterances have no words."""
        return (
            self.metadata is not None
            and self.metadata["failures"] > max_failures * self.metadata["utterances"]
        )


def align_corpus(
    corpus: Corpus,
    aligner: Aligner,
    output: str | os.PathLike[str],
    workers: int | None = None,
    shards: int | None = None,
) -> AlignmentResult:
    """Find when the words of a corpus are spoken, into the directory `output` (see `data.alignment.stored`).

    Process r of w (as the launcher says) makes shards r, r + w, ... and passes over those that exist. Within one,
    `workers` processes align, or, for an aligner that works in one, as many threads read. Utterances that cannot be
    aligned are recorded with the reason. SIGTERM and Ctrl-C end it at once; finished shards stay.

    Raises UserError when `output` holds the alignment of another corpus or aligner.
    """
    if shards is not None and shards < 1:
        raise UserError(f"shards is {shards}: expected at least 1")
    plan = _plan(len(corpus.utterances), shards)
    directory = AlignmentDirectory(output, _identity(corpus, aligner, len(plan)))
    if directory.prepare():
        return AlignmentResult(True, False, 0, directory.metadata())
    todo = [shard for shard in plan[rank() :: world_size()] if not directory.has(shard)]
    # From a random one on: processes started by hand, each as the only one, then share the work.
    first = random.SystemRandom().randrange(len(todo)) if todo else 0
    with StopSignal() as stop:
        if todo:
            with _at_work(aligner, _default_workers() if workers is None else workers) as work:
                _make_shards(work, corpus.utterances, directory, [*todo[first:], *todo[:first]], stop)
        whole = directory.finish(plan, aligner.rejects_low_scores)
    left = 0 if whole else sum(not directory.has(shard) for shard in plan)
    return AlignmentResult(whole, stop.requested, left, directory.metadata() if whole else None)


def _default_workers() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // world_size())


def _plan(utterances: int, shards: int | None) -> list[AlignmentShard]:
    """Runs of utterances in the corpus's order, as even as can be."""
    wanted = shards or min(_MOST_SHARDS, -(-utterances // _UTTERANCES_PER_SHARD))
    count = min(wanted, utterances)
    bounds = [number * utterances // count for number in range(count + 1)]
    return [AlignmentShard(n, count, bounds[n], bounds[n + 1]) for n in range(count)]


def _identity(corpus: Corpus, aligner: Aligner, shards: int) -> dict[str, Any]:
    return {
        "aligner": aligner.name,
        "corpus": {
            "name": corpus.name,
            "format": corpus.format,
            "utterances": len(corpus.utterances),
            "hash": corpus.content_hash(),
        },
        "shards": shards,
    }


def _make_shards(
    work: "_Work",
    utterances: Sequence[Utterance],
    directory: AlignmentDirectory,
    shards: Sequence[AlignmentShard],
    stop: StopSignal,
) -> None:
    total = sum(shard.stop - shard.start for shard in shards)
    with Progress(total, unit="utterances", label="aligning") as progress:
        for shard in shards:
            rows: list[AlignedRow] = []
            if directory.has(shard):  # by another process, meanwhile
                progress.update(shard.stop - shard.start)
                continue
            for row in work.rows(utterances[shard.start : shard.stop]):
                rows.append(row)
                progress.update(1)
                if stop.requested:
                    return
            directory.write_shard(shard, rows)


class _Work:
    """Aligns utterances in order, several at a time."""

    def __init__(self, aligner: Aligner, pool: Executor | None, at_once: int) -> None:
        self._aligner, self._pool, self._at_once = aligner, pool, at_once

    def rows(self, utterances: Sequence[Utterance]) -> Iterator[AlignedRow]:
        if self._pool is None:
            for utterance in utterances:
                yield _row(self._aligner, utterance, _blocks(utterance, self._aligner.sampling_rate))
            return
        waiting: deque[tuple[Utterance, Future[Any]]] = deque()
        try:
            for utterance in utterances:
                waiting.append((utterance, self._submit(self._pool, utterance)))
                if len(waiting) > self._at_once:
                    yield self._finished(*waiting.popleft())
            while waiting:
                yield self._finished(*waiting.popleft())
        finally:
            for _, future in waiting:
                future.cancel()

    def _submit(self, pool: Executor, utterance: Utterance) -> "Future[Any]":
        if self._aligner.in_processes:
            return pool.submit(_align_here, utterance)
        return pool.submit(_begun, _blocks(utterance, self._aligner.sampling_rate))

    def _finished(self, utterance: Utterance, future: "Future[Any]") -> AlignedRow:
        try:
            if self._aligner.in_processes:
                return future.result()
            blocks = future.result()
        except AudioError as error:
            return AlignedRow(utterance.id, reason=str(error))
        except BrokenProcessPool:
            raise UserError(
                "a process that aligns was killed, by lack of memory perhaps: give fewer --workers"
            ) from None
        return _row(self._aligner, utterance, blocks)


@contextmanager
def _at_work(aligner: Aligner, workers: int) -> Iterator[_Work]:
    if workers == 0:
        yield _Work(aligner, None, 0)
        return
    pool: Executor
    if aligner.in_processes:
        pool = ProcessPoolExecutor(workers, initializer=_start_process, initargs=(aligner,))
    else:
        pool = ThreadPoolExecutor(workers)
    try:
        yield _Work(aligner, pool, _READ_AHEAD * workers)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _row(aligner: Aligner, utterance: Utterance, blocks: Iterator[Tensor]) -> AlignedRow:
    if not utterance.text or not utterance.text.strip():
        return AlignedRow(utterance.id, reason="no transcript")
    try:
        found = aligner.align(utterance, blocks)
    except (AlignmentError, AudioError) as error:
        return AlignedRow(utterance.id, reason=str(error))
    return AlignedRow(utterance.id, found.words, found.score)


def _blocks(utterance: Utterance, sampling_rate: int) -> Iterator[Tensor]:
    return read_blocks(utterance.path, sampling_rate, _BLOCK_SECONDS)


def _begun(blocks: Iterator[Tensor]) -> Iterator[Tensor]:
    """The same blocks, the first of them (mostly all there is) read already."""
    return chain([next(blocks)], blocks)


_aligner: Aligner | None = None  # of a worker process


def _start_process(aligner: Aligner) -> None:
    import signal

    import torch

    global _aligner
    _aligner = aligner
    torch.set_num_threads(1)
    # Ctrl-C reaches all processes of a terminal; the one that hands out the work decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _align_here(utterance: Utterance) -> AlignedRow:
    assert _aligner is not None
    return _row(_aligner, utterance, _blocks(utterance, _aligner.sampling_rate))
