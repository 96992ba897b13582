"""The multi-period discriminator of HiFi-GAN (arXiv 2010.05646, section 2.3): speech is made of periodic signals."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from codec.losses.discriminators.base import Discriminator, DiscriminatorOutput, activate, normed_conv2d


@dataclass(frozen=True)
class MultiPeriodConfig:
    """Published: 41 M parameters."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)  # samples
    channels: tuple[int, ...] = (32, 128, 512, 1_024, 1_024)  # of the layers; all but the last stride by 3


class MultiPeriodDiscriminator(Discriminator):
    """One sub-discriminator a period.

    As in Vocos and HH-Codec, feature matching compares all layers but the first, and the score.
    """

    game = "hinge"

    def __init__(self, config: MultiPeriodConfig):
        super().__init__()
        self.parts = nn.ModuleList(PeriodDiscriminator(period, config.channels) for period in config.periods)

    def judge(self, waveform: Tensor, lengths: Tensor | None) -> list[DiscriminatorOutput]:
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
