"""The waveform metrics as one table: what each is called, which way is better, and how it is computed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from codec.metrics.columns import Column
from codec.metrics.dependencies import MissingDependency, require
from codec.metrics.dnsmos import dnsmos
from codec.metrics.intelligibility import stoi
from codec.metrics.listening import pesq_wide_band
from codec.metrics.mel import log_mel_l1
from codec.metrics.pitch import voicing
from codec.metrics.prosody import prosody
from codec.metrics.stft import multi_resolution_stft


@dataclass(frozen=True)
class WaveformMetric:
    """Compares a decoded waveform with its recording, both (samples,) at one rate: one value a column.

    Where `needs_reference` is false, the waveform is judged by itself; the recording that it is given counts for
    nothing, and may be the waveform.
    """

    name: str
    columns: tuple[Column, ...]
    measure: Callable[[Tensor, Tensor, int], tuple[float, ...]]
    packages: tuple[str, ...] = ()  # what must be installed for it
    needs_reference: bool = True


def _voicing_row(reference: Tensor, estimate: Tensor, sampling_rate: int) -> tuple[float, ...]:
    score = voicing(reference, estimate, sampling_rate)
    return score.f1, score.f0_rmse_hz, score.f0_rmse_cents


def _dnsmos_row(_: Tensor, estimate: Tensor, sampling_rate: int) -> tuple[float, ...]:
    score = dnsmos(estimate, sampling_rate)
    return score.overall, score.signal, score.background, score.p808


def _prosody_row(_: Tensor, estimate: Tensor, sampling_rate: int) -> tuple[float, ...]:
    found = prosody(estimate, sampling_rate)
    return found.f0_semitones, found.energy_range_db


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
        packages=("pystoi",),
    ),
    WaveformMetric(
        "pesq",
        (Column("pesq", "PESQ wide band", "higher", 2),),
        lambda reference, estimate, rate: (pesq_wide_band(reference, estimate, rate),),
        packages=("pesq",),
    ),
    WaveformMetric(
        "voicing",
        (
            Column("voicing_f1", "voiced/unvoiced F1", "higher"),
            Column("f0_rmse_hz", "F0 RMSE (Hz)", "lower", 1),
            Column("f0_rmse_cents", "F0 RMSE (cents)", "lower", 0),
        ),
        _voicing_row,
        packages=("pyworld",),
    ),
    WaveformMetric(
        "prosody",
        (
            Column("f0_spread_semitones", "F0 spread (semitones)", None, 2),
            Column("energy_range_db", "energy range (dB)", None, 1),
        ),
        _prosody_row,
        packages=("pyworld",),
        needs_reference=False,
    ),
    WaveformMetric(
        "dnsmos",
        (
            Column("dnsmos_overall", "DNSMOS overall", "higher", 2),
            Column("dnsmos_signal", "DNSMOS signal", "higher", 2),
            Column("dnsmos_background", "DNSMOS background", "higher", 2),
            Column("dnsmos_p808", "DNSMOS P.808", "higher", 2),
        ),
        _dnsmos_row,
        packages=("speechmos", "onnxruntime"),
        needs_reference=False,
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
            for package in metric.packages:
                require(package, metric.name)
            usable.append(metric)
        except MissingDependency as missing:
            skipped[metric.name] = str(missing)
    return UsableMetrics(tuple(usable), skipped)


def score_waveforms(
    reference: Tensor | None, estimate: Tensor, sampling_rate: int, metrics: Sequence[WaveformMetric]
) -> dict[str, float]:
    """All columns of `metrics` for one utterance, by key; both waveforms are (samples,).

    Without a reference only those that need none are measured.
    """
    row: dict[str, float] = {}
    for metric in metrics:
        if reference is None and metric.needs_reference:
            continue
        given = estimate if reference is None else reference
        # a codec fills its last frame: that is no part of the recording
        values = metric.measure(given, estimate[: len(given)], sampling_rate)
        row.update(zip((column.key for column in metric.columns), values, strict=True))
    return row
