"""DNSMOS: opinions predicted without a reference (Reddy et al., ICASSP 2021 and 2022), by Microsoft's models.

The weights come in the package speechmos. Its own code is passed by: it imports librosa, and compiles for minutes.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codec.metrics.dependencies import require
from codec.metrics.mel import resampled

SAMPLING_RATE = 16_000
_WINDOW_SECONDS = 9.01  # what the models were trained on
_WINDOW = int(_WINDOW_SECONDS * SAMPLING_RATE)
# P.835 scores are second-degree polynomials of what the network says (coefficients from the power 2 down to 0)
_SIGNAL = (-0.08397278, 1.22083953, 0.0052439)
_BACKGROUND = (-0.13166888, 1.60915514, -0.39604546)
_OVERALL = (-0.06766283, 1.11546468, 0.04602535)
# P.808 starts from a mel spectrogram
_N_FFT, _HOP, _MELS = 321, 160, 120


@dataclass(frozen=True)
class DNSMOSScore:
    """Predicted opinions, about 1 to 5."""

    overall: float  # P.835
    signal: float  # P.835: the speech itself
    background: float  # P.835: what is behind it
    p808: float  # the single question of P.808


def dnsmos(waveform: Tensor, sampling_rate: int) -> DNSMOSScore:
    """Score (samples,): the mean over windows of 9 s, one a second; shorter recordings are repeated to fill one.

    NaN for an empty recording. Raises MissingDependency without speechmos or onnxruntime.
    """
    samples = resampled(waveform, sampling_rate, SAMPLING_RATE).clamp(-1.0, 1.0)
    if not len(samples):
        return DNSMOSScore(*[math.nan] * 4)
    while len(samples) < _WINDOW:
        samples = torch.cat([samples, samples])
    sessions = _sessions()
    windows = max(1, int(len(samples) // SAMPLING_RATE - _WINDOW_SECONDS) + 1)
    rows = []
    for number in range(windows):
        window = samples[number * SAMPLING_RATE :][:_WINDOW]
        if len(window) < _WINDOW:
            break
        signal, background, overall = sessions.p835.run(None, {"input_1": window[None].numpy()})[0][0]
        mel = _mel_decibels(window[:-_HOP])[None].numpy()
        (p808,) = sessions.p808.run(None, {"input_1": mel})[0][0]
        rows.append(
            [
                _polynomial(_OVERALL, overall),
                _polynomial(_SIGNAL, signal),
                _polynomial(_BACKGROUND, background),
                float(p808),
            ]
        )
    return DNSMOSScore(*torch.tensor(rows, dtype=torch.float64).mean(dim=0).tolist())


@dataclass(frozen=True)
class _Sessions:
    p835: Any
    p808: Any


@lru_cache(maxsize=1)
def _sessions() -> _Sessions:
    models = Path(str(require("speechmos", "DNSMOS").__file__)).parent / "dnsmos_models"
    runtime = require("onnxruntime", "DNSMOS")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = (
        torch.get_num_threads()
    )  # not one a core: scoring processes share the cores
    return _Sessions(
        *(
            runtime.InferenceSession(str(models / name), options, providers=["CPUExecutionProvider"])
            for name in ("sig_bak_ovr.onnx", "model_v8.onnx")
        )
    )


def _polynomial(coefficients: tuple[float, ...], value: float) -> float:
    total = 0.0
    for coefficient in coefficients:
        total = total * float(value) + coefficient
    return total


def _mel_decibels(samples: Tensor) -> Tensor:
    """(samples,) -> (frames, 120): decibels below the loudest point, 80 at most, mapped to -1 ... 1."""
    spectrum = torch.stft(
        samples,
        _N_FFT,
        _HOP,
        window=torch.hann_window(_N_FFT),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    power = spectrum.abs().square().T @ _filters()  # (frames, mels)
    decibels = 10.0 * power.clamp_min(1e-10).log10()
    return ((decibels - decibels.max()).clamp_min(-80.0) + 40.0) / 40.0


@lru_cache(maxsize=1)
def _filters() -> Tensor:
    """(bins, mels) of area-normalised triangles on Slaney's scale.

    Not torchaudio's: with an odd FFT size the last bin is below half the sampling rate, which it does not allow for.
    """
    bins = torch.arange(_N_FFT // 2 + 1, dtype=torch.float64) * SAMPLING_RATE / _N_FFT
    # Slaney's scale: linear up to 1 kHz, mel 15, and then 27 steps for a factor of 6.4
    top = 15.0 + 27.0 * math.log(SAMPLING_RATE / 2 / 1_000.0) / math.log(6.4)
    mels = torch.linspace(0.0, top, _MELS + 2, dtype=torch.float64)
    edges = torch.where(mels < 15.0, mels * 200.0 / 3.0, 1_000.0 * 6.4 ** ((mels - 15.0) / 27.0))
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    triangles = torch.minimum(rising, falling).clamp_min(0.0)
    return (triangles * 2.0 / (edges[2:] - edges[:-2])).float()
