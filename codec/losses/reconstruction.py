"""Reconstruction losses of codecs. Each is a sum over frames divided by a total, so that parts of a batch add up."""

import math
import warnings

import torch
from torch import Tensor, nn

from codec.nn.mel import LogMel, MelConfig
from codec.nn.sequences import masked_mean

# FFT size and mel bands of each scale; short windows teach the phase, long ones the harmonics
SCALES = ((64, 8), (128, 16), (256, 32), (512, 64), (1024, 100), (2048, 160))


def mel_l1(a: Tensor, b: Tensor, mask: Tensor, total: Tensor | float | None = None) -> Tensor:
    """Mean over bands of |a - b|, (batch, mel frames, n_mels) each, summed over the mask's frames, over `total`."""
    return masked_mean((a - b).abs().mean(dim=-1), mask, total)


def waveform_mel_l1(
    mel: LogMel, waveform: Tensor, target: Tensor, samples: Tensor, total_samples: Tensor | float
) -> Tensor:
    """L1 of one centred log-mel: (batch, samples) twice, each row's own (batch,) samples -> scalar."""
    predicted, wanted, hop = mel(waveform), mel(target), mel.config.hop_length
    return mel_l1(predicted, wanted, _own_frames(wanted, samples, hop), total_samples / hop)


class WaveformMelLoss(nn.Module):
    """L1 between log-mels of two waveforms, in the paper's second definition (HTK scale, centred, floor 1e-7)."""

    def __init__(self, sampling_rate: int):
        super().__init__()
        self.mel = LogMel(
            MelConfig(
                sampling_rate=sampling_rate,
                n_fft=1_024,
                hop_length=256,
                f_max=sampling_rate / 2,
                mel_scale="htk",
                norm=None,
                floor=1e-7,
                alignment="center",
            )
        )

    def forward(
        self, waveform: Tensor, target: Tensor, samples: Tensor, total_samples: Tensor | float
    ) -> Tensor:
        """(batch, samples) twice, each row's own (batch,) samples -> scalar."""
        return waveform_mel_l1(self.mel, waveform, target, samples, total_samples)


class MultiScaleMelLoss(nn.Module):
    """DAC's (arXiv 2306.06546, section 3.4): L1 of log10-mels at windows of 32 to 2,048 samples, summed over them."""

    def __init__(self, sampling_rate: int):
        super().__init__()
        with warnings.catch_warnings():
            # of 320 bands, the lowest are narrower than a bin, as in the original
            warnings.simplefilter("ignore")
            self.mels = nn.ModuleList(
                LogMel(
                    MelConfig(
                        sampling_rate=sampling_rate,
                        n_fft=32 * scale,
                        hop_length=8 * scale,
                        n_mels=5 * scale,
                        f_max=sampling_rate / 2,
                        alignment="center",
                    )
                )
                for scale in (1, 2, 4, 8, 16, 32, 64)
            )

    def forward(
        self, waveform: Tensor, target: Tensor, samples: Tensor, total_samples: Tensor | float
    ) -> Tensor:
        """(batch, samples) twice, each row's own (batch,) samples -> scalar."""
        loss = waveform.new_zeros(())
        for mel in self.mels:
            assert isinstance(mel, LogMel)
            loss = loss + waveform_mel_l1(mel, waveform, target, samples, total_samples)
        return loss / math.log(10)


class MultiScaleSpectralLoss(nn.Module):
    """L1 of log-mels and of log magnitudes at window lengths from 64 to 2,048 samples, averaged over the scales."""

    def __init__(self, sampling_rate: int, floor: float = 1e-3):
        super().__init__()
        # a floor far above the noise of 16-bit audio: silence should not outweigh speech
        self.floor = floor
        self.mels = nn.ModuleList(
            LogMel(
                MelConfig(
                    sampling_rate=sampling_rate,
                    n_fft=n_fft,
                    hop_length=n_fft // 4,
                    n_mels=bands,
                    f_max=sampling_rate / 2,
                    norm=None,
                    floor=floor,
                    alignment="center",
                )
            )
            for n_fft, bands in SCALES
        )

    def forward(
        self, waveform: Tensor, target: Tensor, samples: Tensor, total_samples: Tensor | float
    ) -> Tensor:
        """(batch, samples) twice, each row's own (batch,) samples -> scalar."""
        loss = waveform.new_zeros(())
        for mel in self.mels:
            assert isinstance(mel, LogMel)
            hop = mel.config.hop_length
            predicted, wanted = self._magnitudes(waveform, mel), self._magnitudes(target, mel)
            mask = _own_frames(wanted, samples, hop)
            loss = loss + mel_l1(self._log(predicted), self._log(wanted), mask, total_samples / hop)
            filters = mel.filters.to(wanted.dtype)
            loss = loss + mel_l1(
                self._log(predicted @ filters), self._log(wanted @ filters), mask, total_samples / hop
            )
        return loss / len(self.mels)

    def _log(self, x: Tensor) -> Tensor:
        return x.clamp_min(self.floor).log()

    @staticmethod
    def _magnitudes(waveform: Tensor, mel: LogMel) -> Tensor:
        n_fft = mel.config.n_fft
        spectrum = torch.stft(
            waveform,
            n_fft,
            n_fft // 4,
            window=mel.window.to(waveform.dtype),
            center=True,
            return_complex=True,
        )
        # the absolute value has no gradient at exactly zero
        return (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt().transpose(1, 2)


def _own_frames(frames: Tensor, samples: Tensor, hop_length: int) -> Tensor:
    """(batch, frames) mask of the frames whose centre lies within each row's own samples."""
    centres = torch.arange(frames.shape[1], device=frames.device) * hop_length
    return centres[None] < samples[:, None]
