"""What all discriminators share: what they are given, what they answer, and how a row's padding stays unjudged.

Every map that a sub-discriminator makes is laid out (batch, channels, time, rest): `rest` is the phase within a period,
or frequency. So whoever compares maps can tell which positions belong to a row: of `time` positions over a batch of S
samples, a row of L samples owns the first ceil(time * L / S). Beyond a row's length the waveform is zero for recording
and generator alike, and the losses in `codec.losses.adversarial` leave those positions out.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codec.nn.masks import mask_from_lengths

Game = Literal["hinge", "least-squares"]
SLOPE = 0.1  # of the leaky ReLU below zero, in all published discriminators


@dataclass
class DiscriminatorOutput:
    """What one sub-discriminator says of a batch."""

    score: Tensor  # (batch, 1, time, rest): high where it takes the audio for a recording
    features: list[Tensor]  # (batch, channels, time, rest) each: what feature matching compares

    def rows(self, first: int, last: int) -> "DiscriminatorOutput":
        """What it says of the rows from `first` to before `last`."""
        return DiscriminatorOutput(self.score[first:last], [entry[first:last] for entry in self.features])


class Discriminator(nn.Module):
    """Several sub-discriminators that look at the same waveform.

    game: the losses that it was published with, of `codec.losses.adversarial`.
    """

    game: Game

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> list[DiscriminatorOutput]:
        """(batch, 1, samples), each row's own (batch,) samples -> one output a sub-discriminator.

        What lies beyond a row's length is set to zero. No lengths: all rows are full.
        """
        if lengths is not None:
            own = mask_from_lengths(lengths, waveform.shape[-1])
            waveform = waveform.masked_fill(~own[:, None], 0.0)
        return self.judge(waveform, lengths)

    def judge(self, waveform: Tensor, lengths: Tensor | None) -> list[DiscriminatorOutput]:
        """As `forward`, for a waveform that is zero beyond the lengths."""
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
