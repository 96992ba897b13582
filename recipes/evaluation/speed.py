"""How fast a codec is here: seconds of audio a second of computing, one recording at a time."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recipes.evaluation.reconstruction import Reconstructor

_ROUNDS = 3  # the median of them counts: other work on the machine disturbs one or the other
_ROUND_SECONDS = 20.0  # of computing, about: a slow codec is timed on less audio


@dataclass(frozen=True)
class CodecSpeed:
    """Speeds as multiples of real time, batch 1, float32."""

    encode: float
    decode: float
    together: float
    audio_seconds: float  # measured over
    device: str
    threads: int  # of torch on the CPU


def codec_speed(reconstructor: Reconstructor, waveforms: Sequence[Tensor], sampling_rate: int) -> CodecSpeed:
    """Time encoding and decoding of `waveforms` (samples,), after a warm-up, with nothing else running here."""
    device = reconstructor.device
    codes = [reconstructor.encode(waveforms[0])]
    reconstructor.decode(codes[0])  # warm
    _synchronize(device)
    start = time.perf_counter()
    while len(codes) < len(waveforms) and time.perf_counter() - start < _ROUND_SECONDS:
        codes.append(reconstructor.encode(waveforms[len(codes)]))
        reconstructor.decode(codes[-1])
        _synchronize(device)
    waveforms = waveforms[: len(codes)]
    seconds = sum(len(waveform) for waveform in waveforms) / sampling_rate
    encode = _median_time(lambda: [reconstructor.encode(waveform) for waveform in waveforms], device)
    decode = _median_time(lambda: [reconstructor.decode(row) for row in codes], device)
    return CodecSpeed(
        encode=seconds / encode,
        decode=seconds / decode,
        together=seconds / (encode + decode),
        audio_seconds=seconds,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        threads=torch.get_num_threads(),
    )


def _median_time(work: Callable[[], object], device: torch.device) -> float:
    times = []
    for _ in range(_ROUNDS):
        _synchronize(device)
        start = time.perf_counter()
        work()
        _synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
