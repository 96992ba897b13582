"""The waveform metrics as one table; and the two of them that packages compute whole, STOI and PESQ."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from codec.metrics.metric import Column, MissingDependency, WaveformMetric, require
from codec.metrics.mos import distill_mos, dnsmos
from codec.metrics.prosody import prosody, voicing
from codec.metrics.spectral import check_pair, log_mel_l1, multi_resolution_stft, resampled

_PESQ_RATE = 16_000  # of P.862.2
# The reference code has room for 50 stretches of speech (0.3 s or more each, 0.2 s or more apart); with a
# hundred the process dies of a segmentation fault.
_PESQ_SECONDS = 20.0


def stoi(reference: Tensor, estimate: Tensor, sampling_rate: int, extended: bool = False) -> float:
    """Intelligibility of the estimate beside the reference, about 0 to 1.

    Both (samples,); what the estimate has beyond the reference is cut. `extended` is ESTOI (Jensen and Taal,
    2016). NaN where less than about 0.4 s is left when silence is taken out. Raises MissingDependency without
    pystoi.
    """
    package = require("pystoi", "STOI")
    check_pair(reference, estimate)
    target = reference.detach().cpu().double().numpy()
    drawn = estimate[: len(reference)].detach().cpu().double().numpy()
    if not target.any():
        return float("nan")
    with warnings.catch_warnings():
        # too short: pystoi warns and answers 1e-5, which would pass for a score
        warnings.filterwarnings("error", message="Not enough STFT frames", category=RuntimeWarning)
        try:
            return float(package.stoi(target, drawn, sampling_rate, extended=extended))
        except RuntimeWarning:
            return float("nan")
        except ValueError:  # numpy: not even one frame to stack
            return float("nan")


def pesq_wide_band(reference: Tensor, estimate: Tensor, sampling_rate: int) -> float:
    """Predicted listening quality of the estimate beside the reference, 1 to 4.64.

    Both (samples,), resampled to 16 kHz; what the estimate has beyond the reference is cut. More than 20 s is
    scored in equal pieces and averaged. NaN where no piece has speech that PESQ finds, or where it is under
    1/4 s. Raises MissingDependency without the package.
    """
    package = require("pesq", "PESQ")
    check_pair(reference, estimate)
    target = resampled(reference, sampling_rate, _PESQ_RATE).numpy()
    drawn = resampled(estimate[: len(reference)], sampling_rate, _PESQ_RATE).numpy()
    pieces = max(1, math.ceil(len(target) / (_PESQ_SECONDS * _PESQ_RATE)))
    scores = []
    for i in range(pieces):
        piece = slice(i * len(target) // pieces, (i + 1) * len(target) // pieces)
        if not target[piece].any() or not drawn[piece].any():
            continue  # the package cannot level digital silence
        try:
            scores.append(float(package.pesq(_PESQ_RATE, target[piece], drawn[piece], "wb")))
        except (package.NoUtterancesError, package.BufferTooShortError):
            continue
    return sum(scores) / len(scores) if scores else float("nan")


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
    WaveformMetric(
        "distillmos",
        (Column("distillmos", "DistillMOS", "higher", 2),),
        lambda _, estimate, rate: (distill_mos(estimate, rate),),
        packages=("distillmos",),
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
