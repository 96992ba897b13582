"""Reconstruction losses of codecs: every one a sum over frames divided by a total, so that parts of a batch add up."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from codec.foundation import UserError
from codec.nn.masks import masked_mean
from codec.nn.mel import LogMel, MelConfig

# FFT size and mel bands of each scale; short windows teach the phase, long ones the harmonics
SCALES = ((64, 8), (128, 16), (256, 32), (512, 64), (1024, 100), (2048, 160))


@dataclass
class DiscriminatorWeights:
    """Weights of what the generator learns from one discriminator (which learns either way, at weight 1)."""

    adversarial: float = 1.0
    """Weight of the adversarial loss."""
    feature_matching: float = 1.0
    """Weight of the feature matching loss."""

    def __post_init__(self) -> None:
        if (
            min(self.adversarial, self.feature_matching) < 0
            or max(self.adversarial, self.feature_matching) == 0
        ):
            raise UserError(
                f"a discriminator has weights adversarial {self.adversarial}, feature_matching "
                f"{self.feature_matching}: none may be below 0, and one must be above"
            )


@dataclass
class LossWeights:
    """Weight of each loss. A loss of weight 0 is not computed."""

    mel: float = 45.0
    """L1 of the mel decoder's log-mel (arXiv 2507.18897, section 3.4)."""
    waveform_mel: float = 0.0
    """L1 of the final waveform's log-mel; published: 45."""
    multi_scale: float = 0.0
    """L1 of log-mels and log magnitudes of the final waveform, over several window lengths."""
    vq: float = 1_000.0
    """Codebook and commitment loss of the quantizer."""
    distillation: float = 0.0
    """Distillation from a speech SSL model; published: 10."""
    ctc: float = 0.0
    """CTC loss of the transcript's characters on the first quantizer's stream; it needs no teacher."""
    discriminators: dict[str, DiscriminatorWeights] = field(default_factory=dict)
    """By name: multi_period, multi_resolution and dac; published: all three at weights of 1."""

    def __post_init__(self) -> None:
        # those of an override on the command line come as plain dictionaries
        self.discriminators = {
            name: DiscriminatorWeights(**weights) if isinstance(weights, dict) else weights
            for name, weights in self.discriminators.items()
        }

    @property
    def need_waveform(self) -> bool:
        """Whether the vocoder has to run."""
        return self.waveform_mel > 0 or self.multi_scale > 0 or bool(self.discriminators)


def mel_l1(a: Tensor, b: Tensor, mask: Tensor, total: Tensor | float | None = None) -> Tensor:
    """Mean over bands of |a - b|, (batch, mel frames, n_mels) each, summed over the mask's frames; over `total`."""
    return masked_mean((a - b).abs().mean(dim=-1), mask, total)


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
        predicted, wanted = self.mel(waveform), self.mel(target)
        hop = self.mel.config.hop_length
        return mel_l1(predicted, wanted, _own_frames(wanted, samples, hop), total_samples / hop)


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
