"""Distances of spectrograms: dev log-mel L1, and multi-resolution STFT (Parallel WaveGAN, arXiv 1910.11480)."""

from dataclasses import dataclass
from functools import lru_cache

import torch
import torchaudio
from torch import Tensor

from codec.nn.mel import LogMel, MelConfig

# Every "dev log-mel L1" of this project is measured with this definition, whatever mel a codec uses inside.
DEV_LOG_MEL = MelConfig(
    sampling_rate=24_000,
    n_fft=1_000,
    hop_length=250,
    n_mels=100,
    f_min=0.0,
    f_max=12_000.0,
    mel_scale="slaney",
    norm="slaney",
    power=1.0,
    floor=1e-5,
    alignment="same",
    padding="reflect",
)
# (FFT, hop, window) in samples, as published for 24 kHz
RESOLUTIONS = ((1_024, 120, 600), (2_048, 240, 1_200), (512, 50, 240))
_FLOOR = 1e-7  # under the logarithm: silence stays finite


def log_mel_l1(
    reference: Tensor, estimate: Tensor, sampling_rate: int, config: MelConfig = DEV_LOG_MEL
) -> float:
    """Mean absolute difference of two waveforms' log-mels over the frames and bands of one utterance.

    Both are (samples,), resampled to the definition's rate where theirs differs. The estimate may be longer
    (a codec fills its last frame): what lies beyond the reference is cut. NaN where the reference is under a
    frame.
    """
    check_pair(reference, estimate)
    mel = log_mel(resampled(estimate[: len(reference)], sampling_rate, config.sampling_rate), config)
    return decoded_mel_l1(reference, mel, sampling_rate, config)


def decoded_mel_l1(
    reference: Tensor, mel: Tensor, sampling_rate: int, config: MelConfig = DEV_LOG_MEL
) -> float:
    """The same for a mel (frames, n_mels) in the definition `config` that a decoder drew, before any vocoder.

    Frames beyond the reference's own are cut: they draw the padding of the last codec frame.
    """
    target = log_mel(resampled(reference, sampling_rate, config.sampling_rate), config)
    if mel.dim() != 2 or mel.shape[1] != target.shape[1] or len(mel) < len(target):
        raise ValueError(f"the mel is {tuple(mel.shape)}; the reference's is {tuple(target.shape)}")
    if not len(target):
        return float("nan")
    return float((mel[: len(target)].double().cpu() - target.double()).abs().mean())


def log_mel(waveform: Tensor, config: MelConfig = DEV_LOG_MEL) -> Tensor:
    """Log-mel (frames, n_mels) of a waveform (samples,), on the CPU."""
    with torch.inference_mode():
        return _front_end(config)(waveform.detach().cpu().float()[None])[0]


def resampled(waveform: Tensor, sampling_rate: int, target_rate: int) -> Tensor:
    """(samples,) at `sampling_rate` -> (samples',) float32 at `target_rate`, on the CPU."""
    waveform = waveform.detach().cpu().float()
    if sampling_rate == target_rate or not len(waveform):  # torchaudio refuses to resample nothing
        return waveform
    return torchaudio.functional.resample(waveform, sampling_rate, target_rate)


def check_pair(reference: Tensor, estimate: Tensor) -> None:
    """Raise ValueError unless both are (samples,) and the estimate reaches to the reference's end."""
    if reference.dim() != 1 or estimate.dim() != 1:
        shapes = f"{tuple(reference.shape)} and {tuple(estimate.shape)}"
        raise ValueError(f"waveforms are (samples,); these are {shapes}")
    if len(estimate) < len(reference):
        raise ValueError(f"the estimate has {len(estimate)} samples, the reference {len(reference)}")


@lru_cache(maxsize=8)
def _front_end(config: MelConfig) -> LogMel:
    return LogMel(config)


@dataclass(frozen=True)
class STFTDistance:
    """Means over the resolutions."""

    spectral_convergence: float  # ||S - S'||_F / ||S||_F
    log_magnitude: float  # mean |ln S - ln S'|

    @property
    def total(self) -> float:
        """The sum that is usually reported."""
        return self.spectral_convergence + self.log_magnitude


def multi_resolution_stft(
    reference: Tensor, estimate: Tensor, resolutions: tuple[tuple[int, int, int], ...] = RESOLUTIONS
) -> STFTDistance:
    """Distance of two waveforms (samples,) of one rate; what the estimate has beyond the reference is cut.

    The spectral convergence of a silent reference is NaN.
    """
    check_pair(reference, estimate)
    pair = torch.stack((reference, estimate[: len(reference)])).detach().cpu().double()
    convergence, log_magnitude = [], []
    for n_fft, hop, window in resolutions:
        spectrum = torch.stft(
            pair,
            n_fft,
            hop,
            window,
            window=torch.hann_window(window, dtype=pair.dtype),
            center=True,
            pad_mode="constant",  # reflection needs more samples than the shortest utterances have
            return_complex=True,
        ).abs()  # (2, bins, frames)
        target, drawn = spectrum.unbind(0)
        loudness = target.norm()
        convergence.append(torch.where(loudness > 0, (target - drawn).norm() / loudness, torch.nan))
        log_magnitude.append((target.clamp_min(_FLOOR).log() - drawn.clamp_min(_FLOOR).log()).abs().mean())
    return STFTDistance(float(torch.stack(convergence).mean()), float(torch.stack(log_magnitude).mean()))
