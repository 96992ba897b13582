"""BigVGAN v2: mel to waveform by transposed convolutions and anti-aliased periodic activations (arXiv 2206.04658).

Layer names follow NVIDIA's. Everything is (batch, frames, dim), as elsewhere here; the convolutions run channels-last,
which the low-pass filters of the activations and the narrow last stages are several times faster in on the CPU.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

from codec.nn.masks import zero_beyond
from codec.nn.precision import at_weights_precision, is_plain_inference
from codec.nn.streaming import StreamState
from codec.nn.toom_cook import pays, toom_cook_convolve
from codec.vocoders.configuration import BigVGANConfig
from codec.vocoders.snake import AntiAliasedSnake


class BigVGAN(nn.Module):
    """Upsampling stages, after each the mean of several AMP blocks (section 3.1).

    A row's audio does not depend on the batch it rides in: every convolution finds zeros beyond a row's own frames, as
    it does beyond the end of a batch.
    `gradient_checkpointing` makes training keep each AMP block's input only and compute the rest again: slower by a
    third, in a fraction of the memory.
    """

    def __init__(self, config: BigVGANConfig, *, folded: bool):
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        norm: Callable[[nn.Module], nn.Module] = nn.Identity() if folded else weight_norm
        dim = config.dim
        self.conv_pre = norm(nn.Conv1d(config.mel.n_mels, dim, 7, padding=3))
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()  # of the first stage, then of the second, ...
        for rate, kernel_size in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            up = nn.ConvTranspose1d(dim, dim // 2, kernel_size, rate, padding=(kernel_size - rate) // 2)
            self.ups.append(norm(up))
            dim //= 2
            for size, dilations in zip(config.block_kernel_sizes, config.block_dilations, strict=True):
                self.resblocks.append(AMPBlock(dim, size, dilations, norm))
        self.activation_post = AntiAliasedSnake(dim)
        self.conv_post = norm(nn.Conv1d(dim, 1, 7, padding=3, bias=False))

    def forward(
        self,
        mel: Tensor,
        samples: int | None,
        mel_mask: Tensor | None = None,
        state: StreamState | None = None,
    ) -> Tensor:
        """(batch, mel frames, n_mels) natural-log mel -> (batch, `samples`) waveform, all there are unless given."""
        if state is not None:
            raise ValueError("BigVGAN looks ahead in every layer: it cannot stream")
        x = convolve(zero_beyond(mel, mel_mask), self.conv_pre)
        mask, kernels = mel_mask, len(self.config.block_kernel_sizes)
        for stage, (rate, up) in enumerate(zip(self.config.upsample_rates, self.ups, strict=True)):
            x = convolve(zero_beyond(x, mask), up)  # (batch, rate * frames, dim / 2)
            mask = None if mask is None else mask.repeat_interleave(rate, dim=1)
            blocks = self.resblocks[stage * kernels : (stage + 1) * kernels]
            total = self._run(blocks[0], x, mask)
            for block in blocks[1:]:
                total = add(total, self._run(block, x, mask))
            x = total / kernels
        with at_weights_precision(self.conv_post, x) as x:
            x = convolve(self.activation_post(x, mask), self.conv_post)  # (batch, samples, 1)
        return x[:, :samples, 0].clamp(-1, 1)

    def _run(self, block: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, x, mask, use_reentrant=False)
        return block(x, mask)


class AMPBlock(nn.Module):
    """Anti-aliased multi-periodicity: of each dilation activation, convolution, activation, convolution; residual."""

    def __init__(
        self,
        dim: int,
        kernel_size: int,
        dilations: tuple[int, ...],
        norm: Callable[[nn.Module], nn.Module],
    ):
        super().__init__()

        def conv(dilation: int) -> nn.Module:
            padding = dilation * (kernel_size - 1) // 2
            return norm(nn.Conv1d(dim, dim, kernel_size, dilation=dilation, padding=padding))

        self.convs1 = nn.ModuleList(conv(dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(conv(1) for _ in dilations)
        self.activations = nn.ModuleList(AntiAliasedSnake(dim) for _ in range(2 * len(dilations)))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, frames, dim) -> (batch, frames, dim)."""
        for index, (conv1, conv2) in enumerate(zip(self.convs1, self.convs2, strict=True)):
            h = convolve(self.activations[2 * index](x, mask), conv1)
            h = convolve(self.activations[2 * index + 1](h, mask), conv2)
            x = add(x, h)
        return x


def convolve(x: Tensor, layer: nn.Module) -> Tensor:
    """(batch, frames, in_dim) -> (batch, frames, out_dim) by a `Conv1d` or `ConvTranspose1d` that knows its padding."""
    assert isinstance(layer, nn.Conv1d | nn.ConvTranspose1d)
    weight, bias, frames = layer.weight, layer.bias, x.shape[1]
    if isinstance(layer, nn.Conv1d) and pays(frames, *weight.shape) and is_plain_inference(x, weight):
        return torch.stack([toom_cook_convolve(row, weight, bias, layer.dilation[0]) for row in x])
    x = x.transpose(1, 2).unsqueeze(2)  # (batch, in_dim, 1, frames), channels last in memory
    padding, stride = (0, int(layer.padding[0])), (1, layer.stride[0])
    if isinstance(layer, nn.ConvTranspose1d):
        x = F.conv_transpose2d(x, weight.unsqueeze(2), bias, stride, padding)
    else:
        x = F.conv2d(x, weight.unsqueeze(2), bias, stride, padding, (1, layer.dilation[0]))
    return x.squeeze(2).transpose(1, 2)


def add(x: Tensor, y: Tensor) -> Tensor:
    """x + y, written into y where no gradient needs it."""
    return x + y if torch.is_grad_enabled() and (x.requires_grad or y.requires_grad) else y.add_(x)
