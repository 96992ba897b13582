"""Batches of audio, read and resampled: by who asks, or by worker processes ahead of the encoder."""

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data.audio import AudioError, AudioSource, read_audio, read_blocks
from data.corpora import Utterance
from data.tokenization.plan import Plan, Shard

BLOCK_SECONDS = 10.0  # of a long recording at a time


@dataclass
class Request:
    """A batch to read."""

    shard: Shard
    rows: np.ndarray  # (batch,) numbers in the plan
    last: bool  # of its shard


@dataclass
class AudioBatch:
    """What could be read of a request."""

    request: Request
    rows: list[int] = field(default_factory=list)
    waveforms: Tensor | None = None  # (rows, samples) float32, zeros behind each row
    lengths: list[int] = field(default_factory=list)  # samples of each row
    failures: dict[int, str] = field(default_factory=dict)  # reason by row
    long: bool = False  # one long recording, not read yet

    def pin_memory(self) -> "AudioBatch":
        """Called by the loader, so that the way to a GPU does not hold up this process."""
        if self.waveforms is not None:
            self.waveforms = self.waveforms.pin_memory()
        return self


class BatchReader(Dataset[AudioBatch]):
    """Turns a request into an `AudioBatch`; long recordings are left for `long_blocks`."""

    def __init__(
        self, utterances: Sequence[Utterance], plan: Plan, sampling_rate: int, gain: float = 1.0
    ) -> None:
        self._utterances, self._plan, self._rate = utterances, plan, sampling_rate
        self._gain = gain

    def __getitem__(self, request: Request) -> AudioBatch:  # type: ignore[override]
        batch = AudioBatch(request, long=self.is_long(request))
        if batch.long:
            return batch
        waveforms = []
        for row in request.rows.tolist():
            variant = self._plan.variants[self._plan.variant[row]]
            try:
                waveform = read_audio(self._source(row), self._rate, variant.speed)[variant.skip :]
                if len(waveform) == 0:
                    raise AudioError(
                        f"{self._source(row)}: shorter than a frame, nothing is left after a shift"
                    )
            except AudioError as error:
                batch.failures[row] = str(error)
                continue
            batch.rows.append(row)
            waveforms.append(waveform * self._gain if self._gain != 1.0 else waveform)
        batch.lengths = [len(waveform) for waveform in waveforms]
        if waveforms:
            batch.waveforms = torch.zeros(len(waveforms), max(batch.lengths))
            for place, waveform in zip(batch.waveforms, waveforms, strict=True):
                place[: len(waveform)] = waveform
        return batch

    def is_long(self, request: Request) -> bool:
        """Whether it is for one long recording."""
        return self._plan.is_long(int(request.rows[0]))

    def long_blocks(self, row: int) -> Iterator[Tensor]:
        """One recording in blocks (samples,), read ahead by a thread. Raises AudioError, possibly after
        some.
        """
        variant = self._plan.variants[self._plan.variant[row]]
        blocks = read_blocks(self._source(row), self._rate, BLOCK_SECONDS, variant.speed)
        if self._gain != 1.0:
            blocks = (block * self._gain for block in blocks)
        return _dropped(_read_ahead(blocks), variant.skip)

    def _source(self, row: int) -> AudioSource:
        return self._utterances[self._plan.utterance[row]].path


def read_batches(
    reader: BatchReader, requests: Iterable[Request], workers: int, pin_memory: bool
) -> Iterator[AudioBatch]:
    """The batches in the order of the requests, each worker reading two ahead.

    Processes, not threads: readers that share the interpreter's lock slow a thread that launches GPU
    kernels several times over. With no workers this thread reads for itself.
    """
    loader: DataLoader[AudioBatch] = DataLoader(
        reader,
        batch_size=None,
        sampler=requests,  # type: ignore[arg-type]
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=2 if workers else None,
    )
    yield from loader


def _dropped(blocks: Iterator[Tensor], skip: int) -> Iterator[Tensor]:
    for block in blocks:
        yield block[skip:]
        skip = max(0, skip - len(block))


def _read_ahead(blocks: Iterator[Tensor], count: int = 2) -> Iterator[Tensor]:
    """The same blocks, up to `count` of them fetched before they are asked for."""
    ready: queue.Queue[Tensor | BaseException | None] = queue.Queue(maxsize=count)
    stopped = threading.Event()

    def put(item: Tensor | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def run() -> None:
        try:
            for block in blocks:
                if stopped.is_set():
                    return
                put(block)
            put(None)
        except BaseException as error:  # whatever it is, it belongs to the consumer
            put(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
