"""What the Codec tab shows of a recording: its tokens, what they keep of it, and numbers."""

import io
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from codec.metrics import CodebookUse, log_mel_l1
from recipes.reporting.pictures import spectrogram_picture, waveform_row

if TYPE_CHECKING:
    from codec import Codec


_WIDE, _NARROW = 10.0, 4.2  # inches: what is legible beside the controls, and on a phone


@dataclass(frozen=True)
class Picture:
    """One drawing at two widths, for letters are to be read on a phone too: WebP files."""

    wide: bytes
    narrow: bytes


@dataclass(frozen=True)
class CodecView:
    """One recording through a codec."""

    raster: Picture  # the tokens
    spectrograms: Picture  # before and after
    reconstruction: Tensor  # (samples,)
    facts: list[tuple[str, str]]  # what, how much


def view_recording(codec: "Codec", waveform: Tensor) -> CodecView:
    """Encode, decode, draw and measure (samples,) at the codec's rate."""
    config = codec.config
    with torch.inference_mode():
        codes = codec.encode_blocks([waveform.to(codec.device)]).cpu()  # (quantizers, frames)
        audio = codec.decode(codes[None].to(codec.device)).audio_values[0, 0].float().cpu()
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
    """Every token as a dot: time to the right, its number upwards; a panel a quantizer."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

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
    """What `draw` writes as a PNG to a path, at a width in inches."""
    return Picture(_webp(draw, _WIDE), _webp(draw, _NARROW))


def _webp(draw: Callable[[Path, float], None], width: float) -> bytes:
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        draw(path, width)
        with Image.open(path) as image:
            smaller = io.BytesIO()  # a tenth of the PNG: the picture travels inside the page
            image.convert("RGB").save(smaller, "WEBP", quality=90)
            return smaller.getvalue()
