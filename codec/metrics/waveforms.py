"""The waveform metrics as one table: what each is called, which way is better, and how it is computed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from codec.metrics.dependencies import MissingDependency, require
from codec.metrics.intelligibility import stoi
from codec.metrics.listening import pesq_wide_band
from codec.metrics.mel import log_mel_l1
from codec.metrics.pitch import voicing
from codec.metrics.stft import multi_resolution_stft


@dataclass(frozen=True)
class Column:
    """One number in a table of results."""

    key: str
    title: str
    better: Literal["higher", "lower"] | None
    digits: int = 3
    percent: bool = False


@dataclass(frozen=True)
class WaveformMetric:
    """Compares a decoded waveform with its recording, both (samples,) at one rate: one value a column."""

    name: str
    columns: tuple[Column, ...]
    measure: Callable[[Tensor, Tensor, int], tuple[float, ...]]
    package: str | None = None  # what must be installed for it


def _voicing_row(reference: Tensor, estimate: Tensor, sampling_rate: int) -> tuple[float, ...]:
    score = voicing(reference, estimate, sampling_rate)
    return score.f1, score.f0_rmse_hz, score.f0_rmse_cents


WAVEFORM_METRICS: tuple[WaveformMetric, ...] = (
    WaveformMetric(
        "log_mel_l1",
        (Column("log_mel_l1", "log-mel L1 after vocoder", "lower"),),
        lambda reference, estimate, rate: (log_mel_l1(reference, estimate, rate),),
    ),
    WaveformMetric(
        "multi_resolution_stft",
        (Column("multi_resolution_stft", "multi-resolution STFT", "lower"),),
        lambda reference, estimate, rate: (multi_resolution_stft(reference, estimate).total,),
    ),
    WaveformMetric(
        "stoi",
        (Column("stoi", "STOI", "higher"),),
        lambda reference, estimate, rate: (stoi(reference, estimate, rate),),
        package="pystoi",
    ),
    WaveformMetric(
        "pesq",
        (Column("pesq", "PESQ wide band", "higher", 2),),
        lambda reference, estimate, rate: (pesq_wide_band(reference, estimate, rate),),
        package="pesq",
    ),
    WaveformMetric(
        "voicing",
        (
            Column("voicing_f1", "voiced/unvoiced F1", "higher"),
            Column("f0_rmse_hz", "F0 RMSE (Hz)", "lower", 1),
            Column("f0_rmse_cents", "F0 RMSE (cents)", "lower", 0),
        ),
        _voicing_row,
        package="pyworld",
    ),
)


@dataclass(frozen=True)
class UsableMetrics:
    """Which metrics can run here, and why the others cannot."""

    metrics: tuple[WaveformMetric, ...]
    skipped: dict[str, str]  # metric name -> the reason and the cure

    @property
    def columns(self) -> tuple[Column, ...]:
        """Of the usable ones, in order."""
        return tuple(column for metric in self.metrics for column in metric.columns)


def usable_metrics(metrics: Sequence[WaveformMetric] = WAVEFORM_METRICS) -> UsableMetrics:
    """Sort metrics by whether their packages are installed."""
    usable, skipped = [], {}
    for metric in metrics:
        try:
            if metric.package is not None:
                require(metric.package, metric.name)
            usable.append(metric)
        except MissingDependency as missing:
            skipped[metric.name] = str(missing)
    return UsableMetrics(tuple(usable), skipped)


def score_waveforms(
    reference: Tensor, estimate: Tensor, sampling_rate: int, metrics: Sequence[WaveformMetric]
) -> dict[str, float]:
    """All columns of `metrics` for one utterance, by key; both waveforms are (samples,)."""
    row: dict[str, float] = {}
    for metric in metrics:
        values = metric.measure(reference, estimate, sampling_rate)
        row.update(zip((column.key for column in metric.columns), values, strict=True))
    return row
