"""Convolutions and residual units of DAC's encoder and decoder, over (batch, samples, dim) in any of its rates.

Channels last, as everywhere in this package: a 1x1 convolution is then a matrix product, which can add to the residual
stream in place, and a depth of look-around is masked with one multiplication.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codec.hybrid_codec.snake import Snake
from codec.nn.masks import zero_beyond
from codec.nn.pointwise import linear
from codec.nn.precision import is_plain_inference
from codec.nn.toom_cook import MIN_DIM, pays, toom_cook_convolve

DILATIONS = (1, 3, 9)  # of the residual units of one stage
KERNEL = 7  # of a residual unit
UNIT_CONTEXT = sum(
    KERNEL // 2 * dilation for dilation in DILATIONS
)  # samples each side that a stage's units see


class SampleConv(nn.Module):
    """A convolution along samples with as many zeros on both sides; of stride s, S samples become S / s."""

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
            if stride == 1 and pays(x.shape[1], *conv.weight.shape):
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
