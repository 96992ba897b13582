"""From a corpus to its word times: sharded, resumable, on any number of processes."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codec.foundation import Progress, StopSignal, UserError, worker_context
from data.alignment.aligner import Aligner, AlignmentError
from data.alignment.stored import SPLIT, AlignedRow, AlignmentDirectory
from data.audio import read_blocks
from data.corpora.utterance import Corpus, Utterance
from data.decoding import AudioError
from data.sharded_directory import FillResult, Shard, cores_for_this_process

_UTTERANCES_PER_SHARD = 512
_MOST_SHARDS = 1024
_BLOCK_SECONDS = 30.0
_READ_AHEAD = 4  # recordings a thread


def align_corpus(
    corpus: Corpus | Callable[[Path], Corpus],
    aligner: Aligner,
    output: str | os.PathLike[str],
    workers: int | None = None,
    shards: int | None = None,
) -> FillResult:
    """Find when the words of a corpus are spoken, into the directory `output` (see `data.alignment.stored`).

    Process r of w (as the launcher says) makes shards r, r + w, ... and skips those that exist. Utterances that cannot
    be aligned are recorded with the reason. SIGTERM and Ctrl-C end the work at once; finished shards stay.

    corpus: one, or a function that lists it into a directory, as for `tokenize_corpus`
    workers: processes that align or, for an aligner that works in this process, threads that read audio; by default
        one a core. With 0 this process does everything.
    shards: files of word times, by default one for 512 utterances and at most 1,024

    Raises UserError when `output` holds the alignment of another corpus or aligner.
    """
    if shards is not None and shards < 1:
        raise UserError(f"shards is {shards}: expected at least 1")
    if not isinstance(corpus, Corpus):
        if os.path.exists(output):
            AlignmentDirectory(output, {"aligner": aligner.name}, aligner.rejects_low_scores).prepare()
        corpus = corpus(Path(output))
    utterances = corpus.utterances
    plan = _plan(len(utterances), shards)
    directory = AlignmentDirectory(output, _identity(corpus, aligner, len(plan)), aligner.rejects_low_scores)
    if directory.prepare():
        return directory.result()
    workers = cores_for_this_process() if workers is None else workers

    def make(own: Sequence[Shard], stop: StopSignal) -> None:
        with _at_work(aligner, workers) as work:
            _make_shards(work, utterances, directory, own, stop)

    return directory.fill(plan, make)


def _plan(utterances: int, shards: int | None) -> list[Shard]:
    """Runs of utterances in the order of the corpus, as even as can be."""
    wanted = shards or min(_MOST_SHARDS, -(-utterances // _UTTERANCES_PER_SHARD))
    count = min(wanted, utterances)
    bounds = [number * utterances // count for number in range(count + 1)]
    return [Shard(SPLIT, n, count, bounds[n], bounds[n + 1]) for n in range(count)]


def _identity(corpus: Corpus, aligner: Aligner, shards: int) -> dict[str, Any]:
    return {"aligner": aligner.name, "corpus": corpus.identity(), "shards": shards}


def _make_shards(
    work: "_Work",
    utterances: Sequence[Utterance],
    directory: AlignmentDirectory,
    shards: Sequence[Shard],
    stop: StopSignal,
) -> None:
    """Align and write the shards that are not there yet, in order, until asked to stop."""
    done = sum(shard.stop - shard.start for shard in shards if directory.has(shard))
    total = sum(shard.stop - shard.start for shard in shards)
    with Progress(total, unit="utterances", label="aligning", done_before=done) as progress:
        for shard in shards:
            if directory.has(shard):
                continue
            rows: list[AlignedRow] = []
            try:
                for row in work.rows(utterances[shard.start : shard.stop]):
                    rows.append(row)
                    progress.update(1)
                    if stop.requested:
                        return
            except BrokenProcessPool:
                if (
                    stop.requested
                ):  # Ctrl-C reaches all processes of a terminal, those too that have just begun
                    return
                raise UserError(
                    "a process that aligns was killed, by lack of memory perhaps: give fewer --workers"
                ) from None
            directory.write_rows(shard, rows)


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
        if self._aligner.in_processes:
            return future.result()
        try:
            blocks = future.result()
        except AudioError as error:
            return AlignedRow(utterance.id, reason=str(error))
        return _row(self._aligner, utterance, blocks)


@contextmanager
def _at_work(aligner: Aligner, workers: int) -> Iterator[_Work]:
    if workers == 0:
        yield _Work(aligner, None, 0)
        return
    pool: Executor
    if aligner.in_processes:
        context = worker_context(__name__)
        pool = ProcessPoolExecutor(workers, context, initializer=_start_process, initargs=(aligner,))
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
    """The same blocks; the first one, which is mostly the whole recording, is read already."""
    return chain([next(blocks)], blocks)


_aligner: Aligner | None = None  # of a worker process


def _start_process(aligner: Aligner) -> None:
    global _aligner
    _aligner = aligner
    torch.set_num_threads(1)
    # Ctrl-C reaches all processes of a terminal; the one that hands out the work decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _align_here(utterance: Utterance) -> AlignedRow:
    assert _aligner is not None
    return _row(_aligner, utterance, _blocks(utterance, _aligner.sampling_rate))
