"""What the tabs of the page do: a recording through the codec, a text spoken, a recording continued."""

import io
import math
import secrets
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from codec import Codec
from codec.foundation import UserError
from codec.metrics import CodebookUse, log_mel_l1
from recipes.apps.config import DemoLimits
from recipes.apps.uploads import read_upload
from recipes.apps.wav_stream import WavBroadcast, pcm16
from recipes.reporting.pictures import spectrogram_picture, waveform_row
from slm import Prompt, SamplingConfig, SpeechLM, SpokenResult, SpokenSpan

_RECORDING = Path(__file__).parents[2] / "bundled" / "sample_corpus" / "wavs" / "slt-0014.flac"
_WIDE, _NARROW = 10.0, 4.2  # inches: what is legible beside the controls, and on a phone
_MOST_LIVE = 32  # streams that can still be listened to; older ones are forgotten


# ---- Codec


@lru_cache(maxsize=1)
def example_recording() -> tuple[int, np.ndarray]:
    """The sampling rate and the samples (samples,), int16, of a recording from the sample corpus."""
    samples, rate = soundfile.read(_RECORDING, dtype="int16")
    return rate, samples


@dataclass(frozen=True)
class Picture:
    """One drawing as WebP files of two widths: text must stay readable on a phone."""

    wide: bytes
    narrow: bytes


@dataclass(frozen=True)
class CodecView:
    """One recording through a codec."""

    raster: Picture  # the tokens
    spectrograms: Picture  # before and after
    reconstruction: Tensor  # (samples,)
    facts: list[tuple[str, str]]  # what, how much


def view_recording(codec: Codec, waveform: Tensor) -> CodecView:
    """Encode, decode, draw and measure (samples,) at the codec's rate."""
    config = codec.config
    with torch.inference_mode():
        encoded = codec.encode_blocks([waveform.to(codec.device)])
        codes = encoded.audio_codes[0].cpu()  # (quantizers, frames)
        audio = codec.decode(encoded.audio_codes, voice=encoded.voice).audio_values[0, 0].float().cpu()
    audio = audio[: len(waveform)]
    rows = [
        waveform_row("recording", waveform, config.sampling_rate),
        waveform_row("after the codec", audio, config.sampling_rate),
    ]
    return CodecView(
        raster=_picture(lambda path, width: _draw_raster(path, codes.numpy(), config, width)),
        spectrograms=_picture(lambda path, width: spectrogram_picture(path, rows, width)),
        reconstruction=audio,
        facts=_facts(codes, waveform, audio, config),
    )


def _facts(codes: Tensor, waveform: Tensor, audio: Tensor, config: Any) -> list[tuple[str, str]]:
    use = CodebookUse(list(config.codebook_sizes))
    use.update(codes)
    seconds = len(waveform) / config.sampling_rate
    facts = [
        ("length", f"{seconds:.2f} s"),
        ("tokens", f"{codes.numel():,} ({config.frame_rate * config.num_quantizers:g} a second)"),
        (
            "different tokens",
            f"{sum(entry.used for entry in use.statistics()):,} of {sum(config.codebook_sizes):,}",
        ),
        ("bitrate", f"{use.nominal_bitrate(config.frame_rate):.0f} bit/s"),
        ("bitrate by how often each token occurs", f"{use.entropy_bitrate(config.frame_rate):.0f} bit/s"),
    ]
    distance = log_mel_l1(waveform, audio, config.sampling_rate)
    return [*facts, ("log-mel distance (L1)", "–" if math.isnan(distance) else f"{distance:.2f}")]


def _draw_raster(path: Path, codes: np.ndarray, config: Any, width: float) -> None:
    """Draw every token as a dot over time, at the height of its number; one panel for each quantizer."""
    count, frames = codes.shape
    figure = Figure(figsize=(width, 1.0 + 2.4 * min(count, 4)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    times = (np.arange(frames) + 0.5) / config.frame_rate
    for quantizer, axis in enumerate(axes):
        axis.scatter(times, codes[quantizer], s=9, c=codes[quantizer], cmap="viridis", linewidths=0)
        axis.set_ylim(-0.02 * config.codebook_sizes[quantizer], 1.02 * config.codebook_sizes[quantizer])
        axis.set_ylabel("token" if count == 1 else f"q{quantizer}")
    axes[-1].set_xlim(0.0, max(frames / config.frame_rate, 1e-3))
    axes[-1].set_xlabel("seconds")
    figure.savefig(path, dpi=120)


def _picture(draw: Callable[[Path, float], None]) -> Picture:
    """A drawing at both widths; `draw` writes a PNG to a path at a width in inches."""
    return Picture(_webp(draw, _WIDE), _webp(draw, _NARROW))


def _webp(draw: Callable[[Path, float], None], width: float) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        draw(path, width)
        with Image.open(path) as image:
            smaller = io.BytesIO()  # a tenth of the PNG: the picture travels inside the page
            image.convert("RGB").save(smaller, "WEBP", quality=90)
            return smaller.getvalue()


# ---- Speak and Continue


class StreamRegistry:
    """Speech in progress, by names that nobody can guess."""

    def __init__(self) -> None:
        self._streams: OrderedDict[str, WavBroadcast] = OrderedDict()

    def put(self, live: WavBroadcast) -> str:
        """Register a stream and return its name. The oldest stream goes when there are too many."""
        name = secrets.token_urlsafe(16)
        self._streams[name] = live
        while len(self._streams) > _MOST_LIVE:
            self._streams.popitem(last=False)[1].stop()
        return name

    def stop(self, name: str | None) -> None:
        """End a stream with the audio that it has by now."""
        live = self._streams.get(name or "")
        if live is not None:
            live.stop()

    def get(self, name: str) -> WavBroadcast | None:
        """The stream of a name, if it is still registered."""
        return self._streams.get(name)


@dataclass(frozen=True)
class SpeakingView:
    """The Speak tab at one moment."""

    status: str  # a line
    spans: list[SpokenSpan]  # so far
    live: str | None  # the name on the registry of what can be listened to
    audio: Tensor | None = None  # (samples,), at the end
    cuts: list[str] = field(default_factory=list)


def speak(
    speaker: SpeechLM,
    registry: StreamRegistry,
    limits: DemoLimits,
    text: str,
    voice: str | None,
    prompt_path: str | None,
    prompt_text: str,
    sampling: SamplingConfig,
    seed: int,
) -> Iterator[SpeakingView]:
    """Say a text until its end or until it is stopped; yields the view after every chunk. Raises UserError."""
    if len(text) > limits.characters:
        raise UserError(f"the text is longer than {limits.characters} characters")
    prompt: Prompt | None = None
    if prompt_path is not None:
        rate = speaker.vocabulary.codec.sampling_rate
        waveform, _ = read_upload(prompt_path, rate, limits)
        prompt = speaker.prompt(waveform, rate, prompt_text.strip() or None)
        voice = None
    stream = speaker.stream(text, voice, prompt, sampling, seed=seed)
    live = WavBroadcast(stream.sampling_rate)
    name = registry.put(live)
    spans: list[SpokenSpan] = []
    pieces: list[Tensor] = []
    try:
        for chunk in stream:
            live.add(pcm16(chunk.audio))
            pieces.append(chunk.audio)
            spans = spans + chunk.spans
            words = f"{chunk.progress.words} of {chunk.progress.total_words} words"
            if live.stopped:
                break
            yield SpeakingView(f"{words}, {stream.seconds:.1f} s of speech", spans, name)
    finally:
        live.close()  # also when the tab was closed: whoever listens must not wait for ever
    status = (
        f"{'Stopped. ' if live.stopped else ''}{stream.seconds:.1f} s of speech in "
        f"{stream.working_seconds:.1f} s, the first of it after {stream.first_audio_seconds:.2f} s."
    )
    yield SpeakingView(status, spans, name, torch.cat(pieces), stream.cuts)


def continue_recording(
    speaker: SpeechLM,
    limits: DemoLimits,
    path: str | None,
    voice: str | None,
    seconds: float,
    count: int,
    sampling: SamplingConfig,
    seed: int,
) -> Iterator[tuple[SpokenResult, str]]:
    """Continue a recording `count` times; yields each result with a line about it. Raises UserError."""
    if not 1 <= count <= limits.continuations:
        raise UserError(f"1 to {limits.continuations} continuations")
    if not 0 < seconds <= limits.seconds:
        raise UserError(f"a continuation takes up to {limits.seconds:g} s")
    rate = speaker.vocabulary.codec.sampling_rate
    waveform, remark = read_upload(path, rate, limits)
    prompt = speaker.prompt(waveform, rate)
    for number in range(int(count)):
        result = speaker.continue_speech(
            prompt,
            seconds,
            voice=voice,
            sampling=sampling,
            seed=int(seed) + number,
        )
        heard = result.prompt_frames / speaker.vocabulary.codec.frame_rate
        lines = [f"{heard:.1f} s heard, {result.seconds - heard:.1f} s more spoken.", *result.cuts, remark]
        yield result, " ".join(line for line in lines if line)
