"""Multi-resolution STFT distance (Parallel WaveGAN, arXiv 1910.11480, equations 4 to 6)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from codec.metrics.mel import check_pair

# (FFT, hop, window) in samples, as published for 24 kHz
RESOLUTIONS = ((1_024, 120, 600), (2_048, 240, 1_200), (512, 50, 240))
FLOOR = 1e-7  # under the logarithm: silence stays finite


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
        log_magnitude.append((target.clamp_min(FLOOR).log() - drawn.clamp_min(FLOOR).log()).abs().mean())
    return STFTDistance(float(torch.stack(convergence).mean()), float(torch.stack(log_magnitude).mean()))
