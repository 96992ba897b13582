"""Latent to waveform: the convolutional decoder of DAC (arXiv 2306.06546, section 3.1), channels last."""

import torch
from torch import Tensor, nn

from codec.hybrid_codec.configuration import DACDecoderConfig
from codec.hybrid_codec.convolutions import DILATIONS, ResidualUnit, SampleConv, SampleConvTranspose
from codec.hybrid_codec.snake import Snake
from codec.nn.precision import at_weights_precision


class DecoderStage(nn.Module):
    """A transposed convolution to half the width, then three residual units."""

    def __init__(self, dim: int, stride: int, *, folded: bool):
        super().__init__()
        self.stride = stride
        self.snake = Snake(dim)
        self.upsample = SampleConvTranspose(dim, dim // 2, stride, folded=folded)
        self.units = nn.ModuleList(ResidualUnit(dim // 2, dilation, folded=folded) for dilation in DILATIONS)

    def forward(self, x: Tensor, mask: Tensor | None, upsampled_mask: Tensor | None) -> Tensor:
        """(batch, samples, dim), the masks before and behind -> (batch, samples * stride, dim / 2)."""
        x = self.upsample(self.snake(x, overwrite=True), mask)
        for unit in self.units:
            x = unit(x, upsampled_mask)
        return x


class DACDecoder(nn.Module):
    """Latent to waveform."""

    def __init__(self, config: DACDecoderConfig, latent_dim: int, *, folded: bool):
        super().__init__()
        self.config = config
        dim = config.num_filters
        self.first = SampleConv(latent_dim, dim, 7, folded=folded)
        self.stages = nn.ModuleList()
        for ratio in config.ratios:
            self.stages.append(DecoderStage(dim, ratio, folded=folded))
            dim //= 2
        self.snake = Snake(dim)
        self.last = SampleConv(dim, 1, 7, folded=folded)

    def forward(self, latent: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """(batch, frames, dim) -> waveform (batch, frames * hop_length), zero beyond each row's frames."""
        mask = frame_mask
        x = self.first(latent, mask)
        for stage in self.stages:
            assert isinstance(stage, DecoderStage)
            upsampled = None if mask is None else mask.repeat_interleave(stage.stride, dim=1)
            x = stage(x, mask, upsampled)
            mask = upsampled
        with at_weights_precision(self.last, x) as x:
            waveform = torch.tanh(self.last(self.snake(x, overwrite=True), mask))[..., 0]
        return waveform if mask is None else waveform * mask
