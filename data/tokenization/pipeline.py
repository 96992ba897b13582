"""From a plan to codes: reading audio, and encoding it batch by batch.

On a GPU, worker processes read ahead of the encoder. On a CPU, several threads each read a batch and encode it with
their share of the cores. Several batches at once use a CPU better than all cores on one batch: nothing waits for the
slowest core after every layer, and no core leaves a layer because the next batch must be read.
"""

import queue
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from codec import CodecInfo
from codec.foundation import UserError
from codec.foundation.process import return_free_memory
from data.audio import read_audio, read_blocks
from data.decoding import AudioError, printable
from data.sharded_directory import cores_for_this_process
from data.tokenization.plan import Request

BLOCK_SECONDS = 10.0  # of a long recording at a time
_TIDY_SECONDS = 600.0  # of a long recording between two times that free memory is given back
_MOST_THREADS = 4  # each holds the activations of a batch
_AHEAD = 16  # batches begun, or done, before the oldest of them is

T = TypeVar("T")


@dataclass
class AudioBatch:
    """What could be read of a request."""

    request: Request
    rows: list[int] = field(default_factory=list)  # numbers in the shard
    waveforms: Tensor | None = None  # (rows, samples) float32, zeros behind each row
    lengths: list[int] = field(default_factory=list)  # samples of each row
    failures: dict[int, str] = field(default_factory=dict)  # reason by row

    def pin_memory(self) -> "AudioBatch":
        """The loader calls this, so that the copy to a GPU does not hold up this process."""
        if self.waveforms is not None:
            self.waveforms = self.waveforms.pin_memory()
        return self


class BatchReader(Dataset[AudioBatch]):
    """Reads the recordings of a request. `long_blocks` reads long ones later."""

    def __init__(self, sampling_rate: int, gain: float = 1.0) -> None:
        self._rate, self._gain = sampling_rate, gain

    def __getitem__(self, request: Request) -> AudioBatch:  # type: ignore[override]
        batch = AudioBatch(request)
        if request.long:
            return batch
        waveforms = []
        for row, (source, variant) in zip(request.rows.tolist(), request.recordings, strict=True):
            try:
                waveform = read_audio(source, self._rate, variant.speed)[variant.skip :]
                if len(waveform) == 0:
                    raise AudioError(
                        f"{printable(str(source))}: shorter than a frame, nothing is left after a shift"
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

    def long_blocks(self, request: Request) -> Iterator[Tensor]:
        """One recording in blocks (samples,), read ahead by a thread.

        Raises AudioError, possibly after some blocks.
        """
        ((source, variant),) = request.recordings
        blocks = read_blocks(source, self._rate, BLOCK_SECONDS, variant.speed)
        if self._gain != 1.0:
            blocks = (block * self._gain for block in blocks)
        return _dropped(_read_ahead(blocks), variant.skip)


def read_batches(
    reader: BatchReader, requests: Iterable[Request], workers: int, pin_memory: bool
) -> Iterator[AudioBatch]:
    """The batches in the order of the requests; each worker reads two ahead.

    Workers are processes: threads share the interpreter's lock and would slow the one that launches GPU kernels
    several times over. Without workers this thread reads.
    """
    yield from DataLoader(
        reader,
        batch_size=None,
        sampler=requests,  # type: ignore[arg-type]
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=2 if workers else None,
    )


def _dropped(blocks: Iterator[Tensor], skip: int) -> Iterator[Tensor]:
    for block in blocks:
        yield block[skip:]
        skip = max(0, skip - len(block))


def _read_ahead(blocks: Iterator[Tensor], count: int = 2) -> Iterator[Tensor]:
    """The same blocks; a thread fetches up to `count` of them ahead."""
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
        except BaseException as error:  # the consumer raises it
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


@dataclass
class PendingCodes:
    """Codes that the device may still be computing: `streams()` waits for them."""

    codes: Tensor  # (batch, num_quantizers, frames)
    frames: list[int]  # of each row
    voice: Tensor | None  # (batch, voice_dim) of a codec with a voice vector

    def voices(self) -> list[np.ndarray | None]:
        """The voice of each row, (voice_dim,) float16."""
        if self.voice is None:
            return [None] * len(self.frames)
        return list(self.voice.cpu().numpy().astype(np.float16))

    def streams(self) -> list[np.ndarray]:
        """One stream a row, (frames * num_quantizers,) uint16, frame-major."""
        codes = self.codes.cpu().numpy().astype(np.uint16)
        return [to_stream(row[:, :count]) for row, count in zip(codes, self.frames, strict=True)]


def to_stream(codes: np.ndarray) -> np.ndarray:
    """(num_quantizers, frames) -> (frames * num_quantizers,) frame-major."""
    return np.ascontiguousarray(codes.T).reshape(-1)


def to_codes(stream: np.ndarray, num_quantizers: int) -> Tensor:
    """(frames * num_quantizers,) -> (num_quantizers, frames) int64."""
    return torch.from_numpy(stream.astype(np.int64).reshape(-1, num_quantizers).T.copy())


class BatchEncoder:
    """Runs a codec's encoder over padded batches and over long recordings.

    Raises UserError for a codec whose codes do not fit in 16 bits.
    """

    def __init__(self, model: Any, precision: str = "float32") -> None:
        self.info = CodecInfo.of(model)
        if max(self.info.codebook_sizes) > 2**16:
            raise UserError(
                f"{self.info.name} has more than 65,536 codes a codebook: a token dataset holds 16 bits"
            )
        self._model, self._precision = model, precision
        self._device = next(iter(model.parameters())).device

    @property
    def on_gpu(self) -> bool:
        return self._device.type == "cuda"

    def encode(self, waveforms: Tensor, lengths: Sequence[int]) -> PendingCodes:
        """Codes of waveforms (batch, samples) with the samples of each row; does not wait for the device."""
        with _inference(self._device.type, self._precision):
            input_values = waveforms.to(self._device, non_blocking=True)[:, None]  # (batch, 1, samples)
            positions = torch.arange(waveforms.shape[1], device=self._device)
            mask = positions < torch.tensor(lengths, device=self._device)[:, None]  # (batch, samples)
            encoded = self._model.encode(input_values, mask)
        frames = [-(-length // self.info.hop_length) for length in lengths]
        return PendingCodes(encoded.audio_codes, frames, encoded.voice)

    def encode_long(self, blocks: Iterable[Tensor]) -> "LongCodes":
        """Codes of one recording that comes in blocks (samples,)."""
        samples = 0
        often = round(_TIDY_SECONDS * self.info.sampling_rate)

        def counted() -> Iterator[Tensor]:
            nonlocal samples
            for block in blocks:
                if samples // often < (samples + len(block)) // often:
                    return_free_memory()
                samples += len(block)
                yield block

        with _inference(self._device.type, self._precision):
            encoded = self._model.encode_blocks(counted())
        codes = encoded.audio_codes[0].cpu().numpy().astype(np.uint16)  # (num_quantizers, frames)
        voice = None if encoded.voice is None else encoded.voice[0].cpu().numpy().astype(np.float16)
        return LongCodes(to_stream(codes), samples, voice)


@dataclass
class LongCodes:
    """The stream of a long recording, its length in samples, and who speaks."""

    stream: np.ndarray  # (frames * num_quantizers,) uint16
    samples: int
    voice: np.ndarray | None  # (voice_dim,) float16 of a codec with a voice vector


@contextmanager
def _inference(device: str, precision: str) -> Iterator[None]:
    # TF32 keeps 10 bits of a product: enough to flip codes between batches of different shapes.
    # The flags are the whole process's, and on a CPU several threads come here at once.
    cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with (
        torch.inference_mode(),
        cudnn if device == "cuda" else nullcontext(),
        torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        yield


@dataclass
class EncodedBatch:
    """A batch, the stream of each of `batch.rows`, and its voice (of a codec with a voice vector)."""

    batch: AudioBatch
    streams: list[np.ndarray] = field(default_factory=list)
    voices: list[np.ndarray | None] = field(default_factory=list)


def encode_batches(
    encoder: BatchEncoder, reader: BatchReader, requests: Iterable[Request], workers: int | None
) -> Generator[EncodedBatch, None, None]:
    """The codes of the requests, in their order.

    workers: processes that read ahead; None takes as many as help

    On a CPU the encoding threads share the `torch.get_num_threads()` cores.
    """
    threads = torch.get_num_threads()
    if encoder.on_gpu or threads == 1:
        workers = _default_workers() if workers is None else workers
        return _one_by_one(encoder, reader, read_batches(reader, requests, workers, encoder.on_gpu))
    read = read_batches(reader, requests, workers, pin_memory=False) if workers else requests
    return _in_threads(encoder, reader, read, min(_MOST_THREADS, threads), threads)


def _default_workers() -> int:
    """Reader processes for this process: one reads at 1,000 to 2,000 times real time."""
    return max(1, min(8, cores_for_this_process() // 2))


def _one_by_one(
    encoder: BatchEncoder, reader: BatchReader, batches: Iterator[AudioBatch]
) -> Generator[EncodedBatch, None, None]:
    """Launch each batch before fetching the codes of the former one, which keeps a GPU busy."""
    waiting: tuple[AudioBatch, PendingCodes | None] | None = None
    for batch in batches:
        pending = None if batch.request.long else _launch(encoder, batch)
        if waiting is not None:
            yield _fetch(*waiting)
        if batch.request.long:
            waiting = None
            yield _encode_long(encoder, reader, batch)
        else:
            waiting = batch, pending
    if waiting is not None:
        yield _fetch(*waiting)


def _in_threads(
    encoder: BatchEncoder,
    reader: BatchReader,
    items: Iterable[Request | AudioBatch],
    threads: int,
    cores: int,
) -> Generator[EncodedBatch, None, None]:
    """Read and encode in several threads, each with its share of the cores."""
    at_work = threading.Semaphore(threads)

    def encode(item: Request | AudioBatch) -> EncodedBatch:
        batch = item if isinstance(item, AudioBatch) else reader[item]
        with at_work:
            if batch.request.long:
                return _encode_long(encoder, reader, batch)
            return _fetch(batch, _launch(encoder, batch))

    waiting: deque[Future[EncodedBatch]] = deque()
    # One thread more reads while all others encode.
    pool = ThreadPoolExecutor(threads + 1, "encoder", torch.set_num_threads, (cores // threads,))
    try:
        for item, is_last in _with_last(items):
            request = item.request if isinstance(item, AudioBatch) else item
            if is_last and request.long:
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
        torch.set_num_threads(cores)  # a thread's setting also holds for threads that begin later


def _launch(encoder: BatchEncoder, batch: AudioBatch) -> PendingCodes | None:
    return None if batch.waveforms is None else encoder.encode(batch.waveforms, batch.lengths)


def _fetch(batch: AudioBatch, pending: PendingCodes | None) -> EncodedBatch:
    batch.waveforms = None  # as large as all batches ahead together
    return (
        EncodedBatch(batch) if pending is None else EncodedBatch(batch, pending.streams(), pending.voices())
    )


def _encode_long(encoder: BatchEncoder, reader: BatchReader, batch: AudioBatch) -> EncodedBatch:
    (row,) = batch.request.rows.tolist()
    try:
        codes = encoder.encode_long(reader.long_blocks(batch.request))
    except AudioError as error:
        batch.failures[row] = str(error)
        return EncodedBatch(batch)
    batch.rows, batch.lengths = [row], [codes.samples]
    return EncodedBatch(batch, [codes.stream], [codes.voice])


def _with_last(items: Iterable[T]) -> Iterator[tuple[T, bool]]:
    """Each item, and whether it is the last."""
    iterator = iter(items)
    for item in iterator:
        for following in iterator:
            yield item, False
            item = following
        yield item, True
