"""WAV streams: for pipes, and for responses that begin before all of the speech is made."""

import struct

from torch import Tensor

_UNKNOWN = 0xFFFFFFFF  # what players take as "until the stream ends"


def wav_header(sampling_rate: int, samples: int | None = None) -> bytes:
    """The first 44 bytes of a mono WAV of 16 bits; without `samples`, of one that goes on until it ends."""
    size = _UNKNOWN if samples is None else 2 * samples
    whole = _UNKNOWN if samples is None else 36 + size
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sampling_rate, 2 * sampling_rate, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", whole, b"WAVE") + form + struct.pack("<4sI", b"data", size)


def pcm16(waveform: Tensor) -> bytes:
    """(samples,) as 16-bit little-endian samples; what lies outside [-1, 1] is clipped."""
    scaled = (waveform.detach().cpu().float().clamp(-1.0, 1.0) * 32_767.0).round()
    return scaled.numpy().astype("<i2").tobytes()


def wav_bytes(waveform: Tensor, sampling_rate: int) -> bytes:
    """A whole WAV file of a waveform (samples,)."""
    return wav_header(sampling_rate, len(waveform)) + pcm16(waveform)
