"""The convolutional encoder and decoder of DAC (arXiv 2306.06546, section 3.1), with Snake activations.

Everything is (batch, samples, dim), channels last, in any of its rates: a 1x1 convolution is then a matrix product that
can add to the residual stream in place, and a mask is one multiplication.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codec.hybrid_codec.configuration import DACDecoderConfig, DACEncoderConfig
from codec.nn.kernels import (
    MIN_DIM,
    at_weights_precision,
    is_plain_inference,
    linear,
    toom_cook_convolve,
    toom_cook_pays,
)
from codec.nn.sequences import StreamState, zero_beyond

EPSILON = 1e-9  # keeps a frequency of zero from dividing by zero, as in the original


class Snake(nn.Module):
    """Snake, a periodic activation: x + sin^2(alpha x) / alpha, of a frequency `alpha` a channel (arXiv 2006.08195)."""

    def __init__(self, dim: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        """(batch, frames, dim) -> (batch, frames, dim); `overwrite` lets it write into x where no gradient needs x."""
        if torch.is_grad_enabled() and (x.requires_grad or self.alpha.requires_grad):
            return _SnakeFunction.apply(x, self.alpha)
        sine = torch.mul(x, self.alpha).sin_()
        sine.mul_(sine)
        into = x if overwrite and x.dtype == sine.dtype else sine
        return torch.addcmul(x, sine, (self.alpha + EPSILON).reciprocal(), out=into)


class _SnakeFunction(torch.autograd.Function):
    """Keeps x alone for the gradient: left to autograd, four more tensors of its size stay until the backward pass."""

    @staticmethod
    def forward(context: Any, x: Tensor, alpha: Tensor) -> Tensor:
        context.save_for_backward(x, alpha)
        sine = torch.sin(x * alpha)
        return torch.addcmul(x.to(sine.dtype), sine * sine, (alpha + EPSILON).reciprocal())

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, alpha = context.saved_tensors
        inverse = (alpha + EPSILON).reciprocal()
        phase = x * alpha
        twice = torch.sin(2 * phase)  # d sin^2(y) / dy
        grad_x = grad_alpha = None
        if context.needs_input_grad[0]:
            grad_x = (gradient * (1 + alpha * inverse * twice)).to(x.dtype)
        if context.needs_input_grad[1]:
            sine = torch.sin(phase)
            by_alpha = inverse * (x * twice - inverse * sine * sine)
            grad_alpha = (gradient * by_alpha).sum(dim=tuple(range(x.ndim - 1))).to(alpha.dtype)
        return grad_x, grad_alpha


DILATIONS = (1, 3, 9)  # of the residual units of one stage
KERNEL = 7  # of a residual unit
UNIT_CONTEXT = sum(
    KERNEL // 2 * dilation for dilation in DILATIONS
)  # samples that a stage's units see, each side


class SampleConv(nn.Module):
    """A convolution along samples with as many zeros on both sides; of stride s, S samples become S / s."""

    channel_dim = 2  # of the output

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        *,
        folded: bool,
    ):
        super().__init__()
        padding = math.ceil(stride / 2) if stride > 1 else (kernel_size - 1) * dilation // 2
        conv = nn.Conv1d(in_dim, out_dim, kernel_size, stride, padding, dilation)
        self.conv: nn.Conv1d = conv if folded else weight_norm(conv)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, samples, in_dim) -> (batch, samples / stride, out_dim).

        What lies beyond a row's length in the (batch, samples) `mask` counts as zero.
        """
        conv, x = self.conv, zero_beyond(x, mask)
        (kernel,), (stride,), (dilation,) = conv.kernel_size, conv.stride, conv.dilation
        (padding,) = (int(conv.padding[0]),)
        if conv.in_channels == 1:  # a matrix product over windows, which are views
            windows = F.pad(x[..., 0], (padding, padding)).unfold(1, kernel, stride)
            return F.linear(windows, conv.weight[:, 0], conv.bias)
        if conv.in_channels >= MIN_DIM and is_plain_inference(x, conv.weight):
            if stride == 1 and toom_cook_pays(x.shape[1], *conv.weight.shape):
                return torch.stack([toom_cook_convolve(row, conv.weight, conv.bias, dilation) for row in x])
            if dilation == 1:
                # windows side by side make it one matrix product, twice as fast as the convolution
                assert conv.bias is not None
                windows = F.pad(x, (0, 0, padding, padding)).unfold(1, kernel, stride).flatten(2)
                return linear(windows, conv.weight.flatten(1), conv.bias)
        x = x.transpose(1, 2).unsqueeze(2)  # (batch, in_dim, 1, samples), channels last in memory
        x = F.conv2d(x, conv.weight.unsqueeze(2), conv.bias, (1, stride), (0, padding), (1, dilation))
        return x.squeeze(2).transpose(1, 2)


class SampleConvTranspose(nn.Module):
    """A transposed convolution along samples: of stride s, S samples become exactly S * s, odd strides included."""

    def __init__(self, in_dim: int, out_dim: int, stride: int, *, folded: bool):
        super().__init__()
        conv = nn.ConvTranspose1d(
            in_dim, out_dim, 2 * stride, stride, math.ceil(stride / 2), output_padding=stride % 2
        )
        self.conv: nn.ConvTranspose1d = conv if folded else weight_norm(conv)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, samples, in_dim), mask (batch, samples) -> (batch, samples * stride, out_dim)."""
        conv = self.conv
        x = zero_beyond(x, mask).transpose(1, 2).unsqueeze(2)
        x = F.conv_transpose2d(
            x,
            conv.weight.unsqueeze(2),
            conv.bias,
            (1, conv.stride[0]),
            (0, int(conv.padding[0])),
            (0, conv.output_padding[0]),
        )
        return x.squeeze(2).transpose(1, 2)


class ResidualUnit(nn.Module):
    """Snake, dilated kernel-7 convolution, Snake, 1x1 convolution; residual."""

    def __init__(self, dim: int, dilation: int, *, folded: bool):
        super().__init__()
        self.snake1 = Snake(dim)
        self.conv1 = SampleConv(dim, dim, KERNEL, dilation=dilation, folded=folded)
        self.snake2 = Snake(dim)
        self.conv2 = SampleConv(dim, dim, 1, folded=folded)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, samples, dim), mask (batch, samples) -> (batch, samples, dim); without gradients into x itself."""
        h = self.snake2(self.conv1(self.snake1(x), mask), overwrite=True)  # Snake keeps zeros zero
        conv = self.conv2.conv
        in_place = not torch.is_grad_enabled() and h.dtype == x.dtype == conv.weight.dtype
        if not in_place or torch.is_autocast_enabled(x.device.type) or not x.is_contiguous():
            return x + self.conv2(h)
        assert conv.bias is not None
        rows = x.view(-1, x.shape[-1])
        rows.addmm_(h.reshape(rows.shape), conv.weight[..., 0].T).add_(conv.bias)
        return x


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
