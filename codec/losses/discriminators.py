"""Discriminators of waveforms: multi-period, multi-resolution, multi-scale STFT, the Descript Audio Codec's.

A sub-discriminator lays out every map as (batch, channels, time, rest). `rest` is the phase within a period, or
frequency. So the positions of a row are known: of `time` positions over a batch of S samples, a row of L samples owns
the first ceil(time * L / S). Beyond a row's length the waveform is zero, recorded or generated, and the losses in
`codec.losses.adversarial` skip those positions.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codec.configuration import part_from
from codec.foundation import UserError, seed_globals
from codec.losses.config import (
    DISCRIMINATOR_CONFIGS,
    DACDiscriminatorConfig,
    MelDiscriminatorConfig,
    MultiPeriodConfig,
    MultiResolutionConfig,
    MultiScaleSTFTConfig,
)
from codec.nn.kernels import at_least_float32
from codec.nn.sequences import mask_from_lengths

GANLoss = Literal["hinge", "least-squares"]
SLOPE = 0.1  # of the leaky ReLU below zero; EnCodec's is 0.2


@dataclass
class DiscriminatorOutput:
    """Output of one sub-discriminator."""

    score: Tensor  # (batch, 1, time, rest): high where the audio seems real
    features: list[Tensor]  # (batch, channels, time, rest) each: feature matching compares them

    def rows(self, first: int, last: int) -> "DiscriminatorOutput":
        """The output for the rows from `first` to before `last`."""
        return DiscriminatorOutput(self.score[first:last], [entry[first:last] for entry in self.features])


class Discriminator(nn.Module):
    """Several sub-discriminators that look at the same waveform.

    gan_loss: the kind of adversarial loss that it was published with; see `codec.losses.adversarial`.
    judges: what it looks at instead of a waveform: a mel, with frames for samples and bands for the one channel.
    """

    gan_loss: GANLoss
    judges: Literal["waveform", "mel"] = "waveform"

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> list[DiscriminatorOutput]:
        """(batch, 1, samples), each row's own (batch,) samples -> one output a sub-discriminator.

        Samples beyond a row's length are set to zero. Without lengths all rows are full.
        """
        if lengths is not None:
            own = mask_from_lengths(lengths, waveform.shape[-1])
            waveform = waveform.masked_fill(~own[:, None], 0.0)
        return self.score(waveform, lengths)

    def score(self, waveform: Tensor, lengths: Tensor | None) -> list[DiscriminatorOutput]:
        """As `forward`, for a waveform that is already zero beyond the lengths."""
        raise NotImplementedError


def normed_conv1d(*arguments: Any, **settings: Any) -> nn.Conv1d:
    """A convolution over time with weight norm."""
    return weight_norm(nn.Conv1d(*arguments, **settings))


def normed_conv2d(*arguments: Any, **settings: Any) -> nn.Conv2d:
    """A convolution over time and the rest with weight norm."""
    return weight_norm(nn.Conv2d(*arguments, **settings))


def activate(x: Tensor) -> Tensor:
    """The nonlinearity between the layers."""
    return F.leaky_relu(x, SLOPE)


def complex_spectrum(waveform: Tensor, window: Tensor, center: bool = True) -> Tensor:
    """STFT at a hop of a quarter: (batch, 1, samples) -> real and imaginary parts, (batch, 2, time, frequency)."""
    with torch.autocast(waveform.device.type, enabled=False):
        samples = at_least_float32(waveform[:, 0])
        n_fft, window = len(window), window.to(samples.dtype)
        spectrum = torch.stft(samples, n_fft, n_fft // 4, window=window, center=center, return_complex=True)
    return torch.view_as_real(spectrum).permute(0, 3, 2, 1)


class MultiPeriodDiscriminator(Discriminator):
    """HiFi-GAN's discriminator (arXiv 2010.05646, section 2.3): one sub-discriminator a period.

    As in Vocos and HH-Codec, feature matching compares all layers but the first, and the score.
    """

    gan_loss = "hinge"

    def __init__(self, config: MultiPeriodConfig):
        super().__init__()
        self.parts = nn.ModuleList(PeriodDiscriminator(period, config.channels) for period in config.periods)

    def score(self, waveform: Tensor, lengths: Tensor | None) -> list[DiscriminatorOutput]:
        """See `Discriminator.forward`."""
        outputs = [part(waveform) for part in self.parts]
        return [DiscriminatorOutput(out.score, [*out.features[1:], out.score]) for out in outputs]


class PeriodDiscriminator(nn.Module):
    """The waveform folded at a period: convolutions run along samples that lie one period apart."""

    def __init__(self, period: int, channels: tuple[int, ...]):
        super().__init__()
        self.period = period
        last = len(channels) - 1
        self.convs = nn.ModuleList(
            normed_conv2d(before, after, (5, 1), (1 if index == last else 3, 1), padding=(2, 0))
            for index, (before, after) in enumerate(zip((1, *channels), channels, strict=False))
        )
        self.conv_post = normed_conv2d(channels[-1], 1, (3, 1), padding=(1, 0))

    def forward(self, waveform: Tensor) -> DiscriminatorOutput:
        """(batch, 1, samples) -> score and the features of all layers, (batch, channels, time, period) each."""
        waveform = F.pad(waveform, (0, -waveform.shape[-1] % self.period), mode="reflect")
        x = waveform.unflatten(-1, (-1, self.period))  # (batch, 1, samples / period, period)
        features = []
        for conv in self.convs:
            x = activate(conv(x))
            features.append(x)
        return DiscriminatorOutput(self.conv_post(x), features)


# of the multi-resolution discriminator: (time, frequency) of each layer's kernel and stride
_KERNELS = ((5, 7), (3, 5), (3, 5), (3, 3), (3, 3))
_STRIDES = ((2, 2), (1, 2), (2, 2), (1, 2), (2, 2))


class MultiResolutionDiscriminator(Discriminator):
    """UnivNet's discriminator (arXiv 2106.07889, section 2.2) at HH-Codec's width: one sub-discriminator an FFT size.

    Feature matching compares all layers and the score, as in HH-Codec.
    """

    gan_loss = "hinge"

    def __init__(self, config: MultiResolutionConfig):
        super().__init__()
        self.parts = nn.ModuleList(MagnitudeDiscriminator(size, config.channels) for size in config.fft_sizes)

    def score(self, waveform: Tensor, lengths: Tensor | None) -> list[DiscriminatorOutput]:
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


_SCALE_KERNEL = 41


class DACDiscriminator(Discriminator):
    """Descript Audio Codec's discriminator (arXiv 2306.06546, section 3.3): periods, scales, bands of spectra.

    Each row is scaled to mean 0 and a peak of 0.8. Feature matching compares all layers, not the score.

    Two details differ from the original. It pads a waveform whose length is a multiple of a period by one more period.
    It aligns its STFT to strides; here the STFT is centred, as in Vocos, which took the band discriminators over.
    (HH-Codec's copy of it lost the Hann window and the resampling of the scales.)
    """

    gan_loss = "least-squares"

    def __init__(self, config: DACDiscriminatorConfig):
        super().__init__()
        self.parts = nn.ModuleList(
            [
                *(PeriodDiscriminator(period, config.period_channels) for period in config.periods),
                *(ScaleDiscriminator(rate, config.scale_channels) for rate in config.rates),
                *(BandDiscriminator(size, config.bands, config.band_channels) for size in config.fft_sizes),
            ]
        )

    def score(self, waveform: Tensor, lengths: Tensor | None) -> list[DiscriminatorOutput]:
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
        bins = n_fft // 2 + 1
        self.bands = [(int(low * bins), int(high * bins)) for low, high in bands]
        self.stacks = nn.ModuleList(_band_stack(channels) for _ in bands)
        self.conv_post = normed_conv2d(channels, 1, 3, padding=1)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, waveform: Tensor) -> DiscriminatorOutput:
        """(batch, 1, samples) -> score and the features of all layers, (batch, channels, time, frequency) each."""
        spectrum = complex_spectrum(waveform, self.window)  # (batch, 2, 1 + samples / hop, 1 + n_fft / 2)
        features, tops = [], []
        for (low, high), stack in zip(self.bands, self.stacks, strict=True):
            x = spectrum[..., low:high]
            assert isinstance(stack, nn.ModuleList)
            for conv in stack:
                x = activate(conv(x))
                features.append(x)
            tops.append(x)
        return DiscriminatorOutput(self.conv_post(torch.cat(tops, dim=-1)), features)


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


class MultiScaleSTFTDiscriminator(Discriminator):
    """EnCodec's discriminator (arXiv 2210.13438, section 3.4): one sub-discriminator an FFT size.

    Feature matching compares all layers, not the score. (EnCodec divides a layer's difference by the size of the
    recording's features; HybridCodec, which took the discriminator over, does not say that it does.)
    """

    gan_loss = "hinge"

    def __init__(self, config: MultiScaleSTFTConfig):
        super().__init__()
        self.parts = nn.ModuleList(STFTDiscriminator(size, config.channels) for size in config.fft_sizes)

    def score(self, waveform: Tensor, lengths: Tensor | None) -> list[DiscriminatorOutput]:
        """See `Discriminator.forward`."""
        return [part(waveform) for part in self.parts]


class STFTDiscriminator(nn.Module):
    """Convolutions over a complex spectrogram, dilated along time and strided along frequency; without padded ends."""

    window: Tensor

    def __init__(self, n_fft: int, channels: int):
        super().__init__()
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(2, channels, (3, 9), padding=(1, 4)),  # without weight norm, as published
                *(
                    normed_conv2d(
                        channels, channels, (3, 9), (1, 2), padding=(dilation, 4), dilation=(dilation, 1)
                    )
                    for dilation in (1, 2, 4)
                ),
                normed_conv2d(channels, channels, 3, padding=1),
            ]
        )
        self.conv_post = normed_conv2d(channels, 1, 3, padding=1)
        window = torch.hann_window(n_fft)
        self.register_buffer("window", window / window.square().sum().sqrt(), persistent=False)

    def forward(self, waveform: Tensor) -> DiscriminatorOutput:
        """(batch, 1, samples) -> score and the features of all layers, (batch, channels, time, frequency) each."""
        x = complex_spectrum(waveform, self.window, center=False)
        features = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.2)
            features.append(x)
        return DiscriminatorOutput(self.conv_post(x), features)


class MelDiscriminator(Discriminator):
    """Patches of the mel decoder's log-mel, (batch, n_mels, frames): 2-D convolutions that narrow the bands."""

    gan_loss = "least-squares"
    judges = "mel"
    MEAN, STD = -5.2, 2.3  # of the log-mel of speech at the level that decoders speak with

    def __init__(self, config: MelDiscriminatorConfig):
        super().__init__()
        width = config.channels
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(1, width, (3, 9), (1, 2), (1, 4)),
                nn.Conv2d(width, 2 * width, (3, 7), (1, 2), (1, 3)),
                nn.Conv2d(2 * width, 3 * width, (3, 5), (2, 2), (1, 2)),
                nn.Conv2d(3 * width, 3 * width, (3, 5), (2, 2), (1, 2)),
            ]
        )
        self.out = nn.Conv2d(3 * width, 1, 3, padding=1)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> list[DiscriminatorOutput]:
        """(batch, n_mels, frames), each row's own (batch,) frames -> one output."""
        return super().forward((waveform - self.MEAN) / self.STD, lengths)

    def score(self, waveform: Tensor, lengths: Tensor | None) -> list[DiscriminatorOutput]:
        """As `forward`, for a mel that is already zero beyond the lengths."""
        x = waveform.transpose(1, 2)[:, None]  # (batch, 1, frames, n_mels)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return [DiscriminatorOutput(self.out(x), features)]


_DISCRIMINATORS: dict[str, type[Any]] = {
    "multi_period": MultiPeriodDiscriminator,
    "multi_resolution": MultiResolutionDiscriminator,
    "dac": DACDiscriminator,
    "multi_scale_stft": MultiScaleSTFTDiscriminator,
    "mel": MelDiscriminator,
}


def build_discriminators(
    names: Iterable[str], overrides: Mapping[str, Mapping[str, Any]], seed: int
) -> nn.ModuleDict:
    """Fresh discriminators by name. `overrides` replaces fields of their configurations.

    The weights of each depend on its name and the seed only. Raises UserError for names and fields that do not exist.
    """
    for name in overrides:
        if name not in DISCRIMINATOR_CONFIGS:
            raise UserError(f"no discriminator {name!r}: there are {', '.join(DISCRIMINATOR_CONFIGS)}")
    built: dict[str, Discriminator] = {}
    for name in sorted(names):
        config: type[Any] = DISCRIMINATOR_CONFIGS[name]
        seed_globals(seed, "discriminator", name)
        try:
            built[name] = _DISCRIMINATORS[name](part_from(config, dict(overrides.get(name, {}))))
        except (ValueError, TypeError) as error:
            raise UserError(f"the discriminator {name} cannot be built: {error}") from error
    return nn.ModuleDict(built)
