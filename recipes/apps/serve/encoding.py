"""Speech in the formats that clients ask for."""

import io

import soundfile
import torch
from torch import Tensor

from data.audio import Resampler
from data.recordings import WRITTEN_FORMATS
from recipes.apps.serve.bodies import AudioFormat
from recipes.apps.wav_stream import pcm16, wav_bytes

MEDIA_TYPES: dict[AudioFormat, str] = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "pcm": "audio/pcm",
}
# The rate of OpenAI's pcm, which has no header to tell it; Opus knows few rates, and this is one of them.
_FIXED_RATE = 24_000


def resampler_for(response_format: AudioFormat, sampling_rate: int) -> tuple[Resampler, int]:
    """What brings audio to the rate of a format, and that rate."""
    rate = _FIXED_RATE if response_format in ("pcm", "opus") else sampling_rate
    return Resampler(sampling_rate, rate), rate


def encode_audio(waveform: Tensor, sampling_rate: int, response_format: AudioFormat) -> bytes:
    """A whole file of a waveform (samples,)."""
    resampler, rate = resampler_for(response_format, sampling_rate)
    if rate != sampling_rate:
        waveform = torch.cat([resampler.push(waveform), resampler.finish()])
    if response_format == "pcm":
        return pcm16(waveform)
    if response_format == "wav":
        return wav_bytes(waveform, rate)
    file = io.BytesIO()
    container, codec = WRITTEN_FORMATS[f".{response_format}"]
    soundfile.write(file, waveform.clamp(-1.0, 1.0).numpy(), rate, format=container, subtype=codec)
    return file.getvalue()
