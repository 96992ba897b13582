"""A codec's output for one recording, step by step, so that each step can be scored; and how fast the codec is."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.base import CodecEncoderOutput
from codec.metrics import decoded_mel_l1
from codec.nn.mel import LogMel, MelConfig

_ROUNDS = 3  # the median of them counts: other work on the machine disturbs one or the other
_ROUND_SECONDS = 20.0  # of computing, about: a slow codec is timed on less audio


@dataclass
class Reconstruction:
    """What a codec made of one recording."""

    codes: Tensor  # (num_quantizers, frames) int64
    audio: Tensor  # (frames * hop_length,)
    mel: Tensor | None  # (mel frames, n_mels) of the decoder; None for codecs without a mel inside
    vocoded: Tensor | None  # (frames * hop_length,) of the vocoder on the recording's own mel: the ceiling


class Reconstructor:
    """Puts recordings through a codec one by one, batch 1: no padding, so codes are those of the recording alone.

    Args:
        codec: what `load_codec` gives.
        device: where it runs.
        vocodes: put the recordings' own mels through its vocoder too, where it has one.
    """

    def __init__(self, codec: Any, device: str | torch.device, vocodes: bool = True):
        self.codec = codec.to(device)
        self.device = torch.device(device)
        self.hop_length: int = codec.config.hop_length
        vocoder = getattr(codec.config, "vocoder_config", None)
        # the definition of the mel between decoder and vocoder; None for codecs that have no such thing
        self.mel_config: MelConfig | None = vocoder.mel if vocoder is not None else None
        self._front_end = (
            LogMel(self.mel_config).to(device) if vocodes and self.mel_config is not None else None
        )

    @torch.inference_mode()
    def encode(self, waveform: Tensor) -> Tensor:
        """(samples,) -> codes (num_quantizers, frames) on the device."""
        return self._encode(waveform).audio_codes[0]

    def _encode(self, waveform: Tensor) -> CodecEncoderOutput:
        return self.codec.encode(waveform.to(self.device)[None, None])

    @torch.inference_mode()
    def decode(self, codes: Tensor, voice: Tensor | None = None) -> Any:
        """Codes (num_quantizers, frames), voice (1, voice_dim) -> output with `audio_values` (1, 1, samples)."""
        return self.codec.decode(codes[None], voice=voice)

    @torch.inference_mode()
    def reconstruct(self, waveform: Tensor) -> Reconstruction:
        """All of it for one recording (samples,)."""
        encoded = self._encode(waveform)
        codes = encoded.audio_codes[0]
        output = self.decode(codes, encoded.voice)
        mel = getattr(output, "mel", None)
        return Reconstruction(
            codes=codes.cpu(),
            audio=output.audio_values[0, 0].float().cpu(),
            mel=None if mel is None else mel[0].float().cpu(),
            vocoded=self._vocode(waveform, codes.shape[-1]),
        )

    def mel_l1(self, waveform: Tensor, mel: Tensor | None) -> float:
        """Log-mel L1 before the vocoder, in the vocoder's definition; NaN where the codec gave no mel."""
        if mel is None or self.mel_config is None:
            return float("nan")
        reference = self._normalized(waveform).cpu()
        return decoded_mel_l1(reference, mel, self.mel_config.sampling_rate, self.mel_config)

    def _normalized(self, waveform: Tensor) -> Tensor:
        """(samples,) on the device, as loud as what the decoder says, for a codec that does not keep the level."""
        return self.codec.normalized(waveform.to(self.device)[None])[0]

    def _vocode(self, waveform: Tensor, frames: int) -> Tensor | None:
        if self._front_end is None:
            return None
        padded = F.pad(self._normalized(waveform), (0, frames * self.hop_length - len(waveform)))
        return self.codec.vocode(self._front_end(padded[None]), None, frames)[0, 0].float().cpu()


# ---- speed


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
