"""From requests to codes: reading and encoding, one batch after the other or, on a CPU, in several lanes.

A lane is a thread that reads a batch and encodes it, with its share of the cores. Several batches at once use a CPU
better than all cores on one batch: nothing waits for the slowest core after every layer, and no core is taken from
the encoder in the middle of a layer because the next batch must be read.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Semaphore
from typing import TypeVar

import numpy as np
import torch

from codec.foundation import world_size
from data.audio import AudioError
from data.tokenization.encoding import BatchEncoder, PendingCodes
from data.tokenization.reading import AudioBatch, BatchReader, Request, read_batches

MOST_LANES = 4  # each holds the activations of a batch
_AHEAD = 16  # batches begun, or done, before the oldest of them is

T = TypeVar("T")


@dataclass
class EncodedBatch:
    """What was read, and the streams of `batch.rows`."""

    batch: AudioBatch
    streams: list[np.ndarray] = field(default_factory=list)


def encode_batches(
    encoder: BatchEncoder, reader: BatchReader, requests: Iterable[Request], workers: int | None
) -> Iterator[EncodedBatch]:
    """The requests' codes in order, whatever is done at once. `workers` processes read ahead; None: as many as help.

    On a CPU, PyTorch's threads are divided among the lanes, so their number is that of `torch.get_num_threads()`.
    """
    threads = torch.get_num_threads()
    if encoder.on_gpu or threads == 1:
        workers = default_workers() if workers is None else workers
        return _one_by_one(encoder, reader, read_batches(reader, requests, workers, encoder.on_gpu))
    read = read_batches(reader, requests, workers, pin_memory=False) if workers else requests
    return _in_lanes(encoder, reader, read, min(MOST_LANES, threads), threads)


def default_workers() -> int:
    """Reader processes for this process: one reads at 1,000 to 2,000 times real time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // max(1, 2 * world_size())))


def _one_by_one(
    encoder: BatchEncoder, reader: BatchReader, batches: Iterator[AudioBatch]
) -> Iterator[EncodedBatch]:
    """On a GPU a batch is launched before the former one's codes are fetched."""
    waiting: tuple[AudioBatch, PendingCodes | None] | None = None
    for batch in batches:
        pending = None if batch.long else _launch(encoder, batch)
        if waiting is not None:
            yield _fetch(*waiting)
        if batch.long:
            waiting = None
            yield _encode_long(encoder, reader, batch)
        else:
            waiting = batch, pending
    if waiting is not None:
        yield _fetch(*waiting)


def _in_lanes(
    encoder: BatchEncoder,
    reader: BatchReader,
    items: Iterable[Request | AudioBatch],
    lanes: int,
    threads: int,
) -> Iterator[EncodedBatch]:
    at_work = Semaphore(lanes)

    def encode(item: Request | AudioBatch) -> EncodedBatch:
        batch = item if isinstance(item, AudioBatch) else reader[item]
        with at_work:
            if batch.long:
                return _encode_long(encoder, reader, batch)
            return _fetch(batch, _launch(encoder, batch))

    waiting: deque[Future[EncodedBatch]] = deque()
    # one thread more, which reads while all lanes are at work
    pool = ThreadPoolExecutor(lanes + 1, "encoder", torch.set_num_threads, (threads // lanes,))
    try:
        for item, is_last in _with_last(items):
            request = item.request if isinstance(item, AudioBatch) else item
            if is_last and reader.is_long(request):
                while waiting:
                    yield waiting.popleft().result()
                yield encode(item)  # nobody else needs the cores: in this thread, which has all of them
                return
            waiting.append(pool.submit(encode, item))
            while len(waiting) > _AHEAD or (waiting and waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # what a lane sets holds for itself and for threads that begin later


def _launch(encoder: BatchEncoder, batch: AudioBatch) -> PendingCodes | None:
    return None if batch.waveforms is None else encoder.encode(batch.waveforms, batch.lengths)


def _fetch(batch: AudioBatch, pending: PendingCodes | None) -> EncodedBatch:
    batch.waveforms = None  # as large as all batches ahead together
    return EncodedBatch(batch, pending.streams() if pending is not None else [])


def _encode_long(encoder: BatchEncoder, reader: BatchReader, batch: AudioBatch) -> EncodedBatch:
    (row,) = batch.request.rows.tolist()
    try:
        codes = encoder.encode_long(reader.long_blocks(row))
    except AudioError as error:
        batch.failures[row] = str(error)
        return EncodedBatch(batch)
    batch.rows, batch.lengths = [row], [codes.samples]
    return EncodedBatch(batch, [codes.stream])


def _with_last(items: Iterable[T]) -> Iterator[tuple[T, bool]]:
    """Each item, and whether it is the last."""
    iterator = iter(items)
    for item in iterator:
        for following in iterator:
            yield item, False
            item = following
        yield item, True
