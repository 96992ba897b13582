"""Waveform to latent: the convolutional encoder of DAC (arXiv 2306.06546, section 3.1), channels last."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from codec.hybrid_codec.configuration import DACEncoderConfig
from codec.hybrid_codec.convolutions import DILATIONS, UNIT_CONTEXT, ResidualUnit, SampleConv
from codec.hybrid_codec.snake import Snake
from codec.nn.streaming import StreamState

# A stage whose input has more samples than this runs in stretches of so many, which stay in a core's cache through
# all of its layers; on the CPU alone, and without gradients
STRETCH = 16_384


class EncoderStage(nn.Module):
    """Three residual units, then a strided convolution to twice the width."""

    def __init__(self, dim: int, stride: int, *, folded: bool):
        super().__init__()
        self.stride = stride
        self.units = nn.ModuleList(ResidualUnit(dim, dilation, folded=folded) for dilation in DILATIONS)
        self.snake = Snake(dim)
        self.downsample = SampleConv(dim, 2 * dim, 2 * stride, stride, folded=folded)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, samples, dim), mask (batch, samples) -> (batch, samples / stride, 2 * dim)."""
        for unit in self.units:
            x = unit(x, mask)
        return self.downsample(self.snake(x, overwrite=True), mask)


class DACEncoder(nn.Module):
    """Waveform to latent."""

    def __init__(self, config: DACEncoderConfig, *, folded: bool):
        super().__init__()
        self.config = config
        dim = config.num_filters
        self.first = SampleConv(1, dim, 7, folded=folded)
        self.stages = nn.ModuleList()
        for ratio in config.ratios:
            self.stages.append(EncoderStage(dim, ratio, folded=folded))
            dim *= 2
        self.snake = Snake(dim)
        self.last = SampleConv(dim, config.dim, 3, folded=folded)

    def forward(
        self, waveform: Tensor, frame_mask: Tensor | None = None, state: StreamState | None = None
    ) -> Tensor:
        """(batch, samples in whole hops, zero beyond each row's frames) -> (batch, frames, dim)."""
        if state is not None:
            raise ValueError("this encoder cannot stream: all of its layers look ahead")
        x, left = waveform[..., None], self.config.hop_length  # samples of x a frame
        for index, stage in enumerate(self.stages):
            assert isinstance(stage, EncoderStage)
            mask = None if frame_mask is None else frame_mask.repeat_interleave(left, dim=1)
            first = self.first if index == 0 else None

            def layers(
                x: Tensor, mask: Tensor | None, stage: EncoderStage = stage, first: SampleConv | None = first
            ) -> Tensor:
                return stage(x if first is None else first(x, mask), mask)

            # what the strided convolution and, before the first stage, the first convolution see besides
            context = UNIT_CONTEXT + stage.stride + (3 if first is not None else 0)
            x = in_stretches(layers, x, mask, context, stage.stride)
            left //= stage.stride
        return self.last(self.snake(x, overwrite=True), frame_mask)

    @property
    def output_layer(self) -> nn.Conv1d:
        """The affine layer that ends the encoder, for its initialisation from data."""
        return self.last.conv


def in_stretches(
    layers: Callable[[Tensor, Tensor | None], Tensor],
    x: Tensor,
    mask: Tensor | None,
    context: int,
    stride: int,
) -> Tensor:
    """Apply layers that see `context` samples each side to (batch, samples, dim), stretch by stretch.

    What comes out is that of the whole: each stretch is given its context, and what lies nearer to a cut than that is
    dropped. Where gradients are wanted, and on a GPU, the whole is one stretch.
    """
    batch, samples, _ = x.shape
    size = max(stride, STRETCH // batch // stride * stride)
    if torch.is_grad_enabled() or x.device.type != "cpu" or samples <= size:
        return layers(x, mask)
    margin = -(-context // stride) * stride
    pieces = []
    for start in range(0, samples, size):
        begin, end = max(0, start - margin), min(samples, start + size + margin)
        own = None if mask is None else mask[:, begin:end]
        out = layers(x[:, begin:end].clone(), own)  # layers may write into what they are given
        first = (start - begin) // stride
        pieces.append(out[:, first : first + (min(samples, start + size) - start) // stride])
    return torch.cat(pieces, dim=1)
