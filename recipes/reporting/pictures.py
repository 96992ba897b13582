"""Pictures of reports: spectrograms, code histograms, curves, bars."""

import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from codec.foundation import write_bytes
from codec.metrics import DEV_LOG_MEL, log_mel, resampled
from codec.nn.mel import MelConfig

_MARKS = (250, 1_000, 2_000, 4_000, 8_000, 12_000)  # Hz
_NAMED_LINES = 8  # of one panel: a legend of more is longer than the panel


@dataclass(frozen=True)
class SpectrogramRow:
    """One panel: a natural-log mel (frames, n_mels) and how many seconds it spans."""

    title: str
    mel: Tensor
    seconds: float
    config: MelConfig = DEV_LOG_MEL  # of the mel: which frequencies its bands are


def bands_of(hertz: Sequence[float], config: MelConfig) -> np.ndarray:
    """Heights of frequencies in a picture of mel bands, where band m lies between m and m + 1."""
    lines = 4_097
    shape = (lines, config.f_min, config.f_max, config.n_mels, config.sampling_rate)
    peaks = melscale_fbanks(*shape, norm=None, mel_scale=config.mel_scale).argmax(0).numpy()
    centres = peaks * config.sampling_rate / 2 / (lines - 1)
    return np.interp(hertz, centres, np.arange(config.n_mels) + 0.5)


def waveform_row(title: str, waveform: Tensor, sampling_rate: int) -> SpectrogramRow:
    """A panel from a waveform (samples,)."""
    mel = log_mel(resampled(waveform, sampling_rate, DEV_LOG_MEL.sampling_rate))
    return SpectrogramRow(title, mel, len(waveform) / sampling_rate)


def spectrogram_picture(
    path: str | os.PathLike[str], rows: Sequence[SpectrogramRow], width: float = 10.0
) -> None:
    """Panels below each other on one time axis and one colour scale, as a PNG; `width` in inches.

    The panel of what is too short for a frame stays empty.
    """
    figure = _figure(width, 2.2 * len(rows) + 0.4)
    axes = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
    low = min((float(row.mel.min()) for row in rows if len(row.mel)), default=0.0)
    high = max((float(row.mel.max()) for row in rows if len(row.mel)), default=0.0)
    for axis, row in zip(axes, rows, strict=True):
        if len(row.mel):
            axis.imshow(
                row.mel.T.numpy(),
                origin="lower",
                aspect="auto",
                extent=(0.0, row.seconds, 0.0, row.mel.shape[1]),
                vmin=max(low, high - 10.0),  # 87 dB: what lies below is not heard
                vmax=high,
                cmap="magma",
            )
        axis.set_title(row.title, loc="left", fontsize=10)
        marks = [hertz for hertz in _MARKS if row.config.f_min <= hertz <= row.config.f_max]
        axis.set_yticks(bands_of(marks, row.config), [f"{hertz:,}" for hertz in marks])
        axis.set_ylabel("Hz")
    axes[-1].set_xlim(0.0, max(row.seconds for row in rows))
    axes[-1].set_xlabel("seconds")
    _save(figure, path)


def code_histogram(path: str | os.PathLike[str], counts: Mapping[str, Sequence[np.ndarray]]) -> None:
    """How often each code is used, most frequent first: one panel a codec, by name, one line a quantizer.

    The even share is dotted.
    """
    figure = _figure(8.0, 4.0 * len(counts))
    axes = figure.subplots(len(counts), 1, squeeze=False)[:, 0]
    for axis, (name, quantizers) in zip(axes, counts.items(), strict=True):
        _draw_histogram(axis, quantizers)
        if len(counts) > 1:
            axis.set_title(name, loc="left", fontsize=10)
    axes[-1].set_xlabel("code, by frequency")
    _save(figure, path)


def _draw_histogram(axis: Axes, counts: Sequence[np.ndarray]) -> None:
    for quantizer, count in enumerate(counts):
        total = max(1, int(count.sum()))
        share = np.sort(count[count > 0])[::-1] / total
        label = f"{len(share):,} of {len(count):,} codes in use"
        axis.plot(
            np.arange(1, len(share) + 1),
            share,
            label=label if len(counts) == 1 else f"quantizer {quantizer}: {label}",
            alpha=1.0 if len(counts) <= _NAMED_LINES else 0.5,
        )
    for size in {len(count) for count in counts}:
        axis.axhline(1.0 / size, color="grey", linestyle=":", linewidth=1.0)
    axis.set_yscale("log")
    axis.set_ylabel("share of all frames")
    if len(counts) <= _NAMED_LINES:
        axis.legend()
    axis.grid(alpha=0.3)


@dataclass(frozen=True)
class Curve:
    """One line of a plot of curves."""

    x: Sequence[float]
    y: Sequence[float]
    label: str
    marker: bool = False  # few points: show them


def curves_picture(path: str | os.PathLike[str], panels: Mapping[str, Sequence[Curve]], x_label: str) -> None:
    """Curves side by side, one panel a y label, as a PNG."""
    figure = _figure(5.5 * len(panels), 3.8)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (y_label, curves) in zip(axes, panels.items(), strict=True):
        for curve in curves:
            axis.plot(curve.x, curve.y, label=curve.label, marker="o" if curve.marker else None, markersize=3)
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_label)
        axis.grid(alpha=0.3)
        axis.legend()
    _save(figure, path)


def bars_picture(path: str | os.PathLike[str], bars: Mapping[str, Mapping[str, float]], y_label: str) -> None:
    """Bars in groups, as a PNG: by group (on the x axis), then by what is compared in it (by colour); NaN: no bar."""
    names = list(dict.fromkeys(name for group in bars.values() for name in group))
    figure = _figure(max(6.0, 1.0 + 0.45 * len(bars) * (len(names) + 1)), 3.8)
    axis = figure.subplots()
    width = 0.8 / max(1, len(names))
    for number, name in enumerate(names):
        heights = [group.get(name, math.nan) for group in bars.values()]
        places = np.arange(len(bars)) + (number - (len(names) - 1) / 2) * width
        axis.bar(places, heights, width, label=name)
    axis.set_xticks(np.arange(len(bars)), list(bars))
    if len(bars) > 4:
        axis.tick_params(axis="x", rotation=30)
    axis.set_ylabel(y_label)
    axis.grid(axis="y", alpha=0.3)
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    # a Figure of its own, not pyplot: no window, no global state, safe beside other plots of the process
    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_bytes(Path(path), buffer.getvalue())
