"""The discriminator of the Descript Audio Codec (arXiv 2306.06546, section 3.3): periods, scales, bands of spectra.

Two things of the original are not followed: it pads a waveform whose length is a multiple of a period by one more
period, and aligns its STFT to strides; here the STFT is centred, as in Vocos, whose multi-resolution discriminator the
band discriminators are. (HH-Codec's copy of it lost the Hann window and the resampling of the scales.)
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torchaudio
from torch import Tensor, nn

from codec.losses.discriminators.base import (
    Discriminator,
    DiscriminatorOutput,
    activate,
    normed_conv1d,
    normed_conv2d,
)
from codec.losses.discriminators.multi_period import PeriodDiscriminator
from codec.nn.precision import at_least_float32

_SCALE_KERNEL = 41


@dataclass(frozen=True)
class DACDiscriminatorConfig:
    """Published: periods and bands, 42 M parameters; scales are there for whoever wants them."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)  # samples
    period_channels: tuple[int, ...] = (32, 128, 512, 1_024, 1_024)
    rates: tuple[int, ...] = ()  # of the scales: 1 looks at all samples, 2 at half the sampling rate
    # of the scales' layers; all but the first and last stride by 4, and are grouped by 4 input channels
    scale_channels: tuple[int, ...] = (16, 64, 256, 1_024, 1_024, 1_024)
    fft_sizes: tuple[int, ...] = (2_048, 1_024, 512)  # samples; the hop is a quarter
    bands: tuple[tuple[float, float], ...] = (  # shares of the spectrum
        (0.0, 0.1),
        (0.1, 0.25),
        (0.25, 0.5),
        (0.5, 0.75),
        (0.75, 1.0),
    )
    band_channels: int = 32


class DACDiscriminator(Discriminator):
    """One sub-discriminator a period, a scale, an FFT size.

    Each row is judged without its mean and at a peak of 0.8. Feature matching compares all layers, not the score.
    """

    game = "least-squares"

    def __init__(self, config: DACDiscriminatorConfig):
        super().__init__()
        self.parts = nn.ModuleList(
            [
                *(PeriodDiscriminator(period, config.period_channels) for period in config.periods),
                *(ScaleDiscriminator(rate, config.scale_channels) for rate in config.rates),
                *(BandDiscriminator(size, config.bands, config.band_channels) for size in config.fft_sizes),
            ]
        )

    def judge(self, waveform: Tensor, lengths: Tensor | None) -> list[DiscriminatorOutput]:
        """See `Discriminator.forward`."""
        waveform = _normalized(waveform, lengths)
        return [part(waveform) for part in self.parts]


class ScaleDiscriminator(nn.Module):
    """Grouped convolutions over the waveform at a fraction of its sampling rate (MelGAN, arXiv 1910.06711)."""

    def __init__(self, rate: int, channels: tuple[int, ...]):
        super().__init__()
        self.rate = rate
        first, last = channels[0], channels[-1]
        self.convs = nn.ModuleList(
            [
                normed_conv1d(1, first, 15, padding=7),
                *(
                    normed_conv1d(
                        before, after, _SCALE_KERNEL, 4, groups=before // 4, padding=_SCALE_KERNEL // 2
                    )
                    for before, after in pairwise(channels[:-1])
                ),
                normed_conv1d(channels[-2], last, 5, padding=2),
            ]
        )
        self.conv_post = normed_conv1d(last, 1, 3, padding=1)

    def forward(self, waveform: Tensor) -> DiscriminatorOutput:
        """(batch, 1, samples) -> score and the features of all layers, (batch, channels, time, 1) each."""
        x = waveform
        if self.rate > 1:
            with torch.autocast(x.device.type, enabled=False):
                x = torchaudio.functional.resample(at_least_float32(x), self.rate, 1)
        features = []
        for conv in self.convs:
            x = activate(conv(x))
            features.append(x[..., None])
        return DiscriminatorOutput(self.conv_post(x)[..., None], features)


class BandDiscriminator(nn.Module):
    """A complex spectrogram, real and imaginary part as channels; a stack of convolutions for each band of it."""

    window: Tensor

    def __init__(self, n_fft: int, bands: tuple[tuple[float, float], ...], channels: int):
        super().__init__()
        self.n_fft = n_fft
        bins = n_fft // 2 + 1
        self.bands = [(int(low * bins), int(high * bins)) for low, high in bands]
        self.stacks = nn.ModuleList(_band_stack(channels) for _ in bands)
        self.conv_post = normed_conv2d(channels, 1, 3, padding=1)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, waveform: Tensor) -> DiscriminatorOutput:
        """(batch, 1, samples) -> score and the features of all layers, (batch, channels, time, frequency) each."""
        spectrum = self.spectrum(waveform)
        features, tops = [], []
        for (low, high), stack in zip(self.bands, self.stacks, strict=True):
            x = spectrum[..., low:high]
            assert isinstance(stack, nn.ModuleList)
            for conv in stack:
                x = activate(conv(x))
                features.append(x)
            tops.append(x)
        return DiscriminatorOutput(self.conv_post(torch.cat(tops, dim=-1)), features)

    def spectrum(self, waveform: Tensor) -> Tensor:
        """(batch, 1, samples) -> real and imaginary parts, (batch, 2, 1 + samples / hop, 1 + n_fft / 2)."""
        with torch.autocast(waveform.device.type, enabled=False):
            samples = at_least_float32(waveform[:, 0])
            spectrum = torch.stft(
                samples,
                self.n_fft,
                self.n_fft // 4,
                window=self.window.to(samples.dtype),
                return_complex=True,
            )
        return torch.view_as_real(spectrum).permute(0, 3, 2, 1)


def _band_stack(channels: int) -> nn.ModuleList:
    return nn.ModuleList(
        [
            normed_conv2d(2, channels, (3, 9), padding=(1, 4)),
            *(normed_conv2d(channels, channels, (3, 9), (1, 2), padding=(1, 4)) for _ in range(3)),
            normed_conv2d(channels, channels, 3, padding=1),
        ]
    )


def _normalized(waveform: Tensor, lengths: Tensor | None) -> Tensor:
    """Each row's own samples without their mean, at a peak of 0.8; zero beyond."""
    samples = waveform.shape[-1]
    if lengths is None:
        centred = waveform - waveform.mean(dim=-1, keepdim=True)
    else:
        own = torch.arange(samples, device=waveform.device) < lengths[:, None, None]
        mean = waveform.sum(dim=-1, keepdim=True) / lengths.clamp_min(1)[:, None, None]
        centred = (waveform - mean) * own
    return 0.8 * centred / (centred.abs().amax(dim=-1, keepdim=True) + 1e-9)
