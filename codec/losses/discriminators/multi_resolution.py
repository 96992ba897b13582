"""The multi-resolution discriminator of UnivNet (arXiv 2106.07889, section 2.2) at the width that HH-Codec uses."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from codec.losses.discriminators.base import Discriminator, DiscriminatorOutput, activate, normed_conv2d
from codec.nn.precision import at_least_float32

# (time, frequency) of each layer's kernel and stride
_KERNELS = ((5, 7), (3, 5), (3, 5), (3, 3), (3, 3))
_STRIDES = ((2, 2), (1, 2), (2, 2), (1, 2), (2, 2))


@dataclass(frozen=True)
class MultiResolutionConfig:
    """Published: 0.6 M parameters."""

    fft_sizes: tuple[int, ...] = (1_024, 2_048, 512)  # samples; the hop is a quarter
    channels: int = 64


class MultiResolutionDiscriminator(Discriminator):
    """One sub-discriminator an FFT size; feature matching compares all layers, and the score (as HH-Codec does)."""

    game = "hinge"

    def __init__(self, config: MultiResolutionConfig):
        super().__init__()
        self.parts = nn.ModuleList(MagnitudeDiscriminator(size, config.channels) for size in config.fft_sizes)

    def judge(self, waveform: Tensor, lengths: Tensor | None) -> list[DiscriminatorOutput]:
        """See `Discriminator.forward`."""
        outputs = [part(waveform) for part in self.parts]
        return [DiscriminatorOutput(out.score, [*out.features, out.score]) for out in outputs]


class MagnitudeDiscriminator(nn.Module):
    """Strided convolutions over a magnitude spectrogram.

    The window is rectangular, as published (UnivNet's code; Vocos and HH-Codec took it over).
    """

    def __init__(self, n_fft: int, channels: int):
        super().__init__()
        self.n_fft = n_fft
        self.convs = nn.ModuleList(
            normed_conv2d(
                1 if index == 0 else channels,
                channels,
                kernel,
                stride,
                padding=(kernel[0] // 2, kernel[1] // 2),
            )
            for index, (kernel, stride) in enumerate(zip(_KERNELS, _STRIDES, strict=True))
        )
        self.conv_post = normed_conv2d(channels, 1, 3, padding=1)

    def forward(self, waveform: Tensor) -> DiscriminatorOutput:
        """(batch, 1, samples) -> score and the features of all layers, (batch, channels, time, frequency) each."""
        x = self.magnitudes(waveform)
        features = []
        for conv in self.convs:
            x = activate(conv(x))
            features.append(x)
        return DiscriminatorOutput(self.conv_post(x), features)

    def magnitudes(self, waveform: Tensor) -> Tensor:
        """(batch, 1, samples) -> (batch, 1, 1 + samples / hop, 1 + n_fft / 2)."""
        with torch.autocast(waveform.device.type, enabled=False):
            samples = at_least_float32(waveform[:, 0])
            spectrum = torch.stft(
                samples,
                self.n_fft,
                self.n_fft // 4,
                window=torch.ones(self.n_fft, dtype=samples.dtype, device=samples.device),
                return_complex=True,
            )
            # the absolute value has no gradient at exactly zero
            magnitudes = (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt()
        return magnitudes.transpose(1, 2)[:, None]
