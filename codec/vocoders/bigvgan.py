"""BigVGAN v2: mel to waveform by transposed convolutions and anti-aliased periodic activations (arXiv 2206.04658).

Layer names follow NVIDIA's. Everything is (batch, frames, dim), as elsewhere here. The convolutions run channels-last:
on the CPU, the low-pass filters of the activations and the narrow last stages are several times faster that way.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

from codec.nn.kernels import at_weights_precision, is_plain_inference, toom_cook_convolve, toom_cook_pays
from codec.nn.mel import MelConfig
from codec.nn.sequences import StreamState, lengths_from_mask, zero_beyond


@dataclass(frozen=True)
class BigVGANConfig:
    """BigVGAN v2 (arXiv 2206.04658), as published for 24 kHz and 100 bands: `nvidia/bigvgan_v2_24khz_100band_256x`."""

    kind: Literal["bigvgan"] = "bigvgan"
    mel: MelConfig = field(default_factory=lambda: MelConfig(n_fft=1_024, hop_length=256, power_offset=1e-9))
    dim: int = 1_536  # before the first upsampling; each halves it
    upsample_rates: tuple[int, ...] = (4, 4, 2, 2, 2, 2)  # their product is the mel's hop
    upsample_kernel_sizes: tuple[int, ...] = (8, 8, 4, 4, 4, 4)
    block_kernel_sizes: tuple[int, ...] = (3, 7, 11)  # of the AMP blocks behind each upsampling
    block_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5),) * 3  # of each of them

    def __post_init__(self) -> None:
        if math.prod(self.upsample_rates) != self.mel.hop_length:
            raise ValueError(
                f"BigVGAN's upsample_rates multiply to {math.prod(self.upsample_rates)}: "
                f"they have to make the mel's hop of {self.mel.hop_length} samples"
            )

    @property
    def streams(self) -> bool:
        """Whether chunked equals whole: not with look-ahead in every layer."""
        return False


class BigVGAN(nn.Module):
    """Upsampling stages, after each the mean of several AMP blocks (section 3.1).

    A row's audio does not depend on the rest of its batch: every convolution finds zeros beyond a row's own frames.
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
    if (
        isinstance(layer, nn.Conv1d)
        and toom_cook_pays(frames, *weight.shape)
        and is_plain_inference(x, weight)
    ):
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


TAPS = 12  # of the low-pass filter, at the doubled rate
MARGIN = TAPS // 4  # frames on each side of a frame that either filter sees
BLOCK = 4  # frames that one small matrix product filters at once: the fewest multiplications that still keep it busy
VALUES_AT_ONCE = 65_536  # that a core takes through all steps while they are in its cache


class AntiAliasedSnake(nn.Module):
    """SnakeBeta at twice the rate (section 3.2): a frequency `alpha` and an inverse magnitude `beta` a channel.

    Raise the rate by two with a low-pass filter, apply x + sin^2(alpha x) / beta, lower the rate with the same filter.
    Both filters hold the ends of a row (as many copies of the first and last value as the filter needs). `alpha` and
    `beta` are stored as logarithms.
    """

    taps: Tensor

    def __init__(self, dim: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(dim))
        self.beta = nn.Parameter(torch.zeros(dim))
        self.register_buffer("taps", torch.empty(TAPS), persistent=False)
        self.reset_buffers()

    def reset_buffers(self) -> None:
        """Fill in the filter; `from_pretrained` builds modules without data and calls this again."""
        self.taps.copy_(torch.tensor(low_pass()))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, frames, dim), mask (batch, frames) -> (batch, frames, dim), zero beyond a row's own frames."""
        alpha = self.alpha.exp()
        root = (self.beta.exp() + 1e-9).rsqrt()  # sin^2 / beta is (root sin)^2; the epsilon is the original's
        if is_plain_inference(x, alpha, root):
            return _in_blocks(x, alpha, root, mask)
        x = _hold_ends(x, mask, MARGIN, MARGIN)
        taps = self.taps.to(x.dtype)
        # Polyphase: zeros between the frames are never written, let alone multiplied. With the filter's symmetry the
        # odd samples' taps are the even ones' reversed.
        even = _depthwise(x[:, :-1], 2 * taps[1::2].flip(0))  # (batch, frames, dim)
        odd = _depthwise(x[:, 1:], 2 * taps[0::2].flip(0))
        doubled = torch.stack([even, odd], dim=2).flatten(1, 2)  # (batch, 2 * frames, dim)
        doubled = doubled + (root * torch.sin(doubled * alpha)).square()
        doubled_mask = None if mask is None else mask.repeat_interleave(2, dim=1)
        halved = _depthwise(_hold_ends(doubled, doubled_mask, TAPS // 2 - 1, TAPS // 2), taps, stride=2)
        return zero_beyond(halved, mask)


@lru_cache
def low_pass() -> tuple[float, ...]:
    """The filter of both directions: a sinc under a Kaiser window, cut off at a quarter of the doubled rate; sums to 1.

    As the published models have it: half the transition is 0.3 of the doubled rate wide.
    """
    half = TAPS // 2
    attenuation = 2.285 * (half - 1) * math.pi * 4 * 0.3 + 7.95
    beta = 0.1102 * (attenuation - 8.7)  # Kaiser's own formula, for more than 50 dB
    window = torch.kaiser_window(TAPS, periodic=False, beta=beta, dtype=torch.float64, device="cpu")
    time = torch.arange(-half, half, dtype=torch.float64, device="cpu") + 0.5
    taps = window * torch.sinc(time / 2)
    return tuple((taps / taps.sum()).tolist())


def _hold_ends(x: Tensor, mask: Tensor | None, left: int, right: int) -> Tensor:
    """(batch, frames, dim) -> (batch, left + frames + right, dim): a row goes on as it begins and ends."""
    last = x[:, -1:]
    if mask is not None:
        lengths = lengths_from_mask(mask).clamp_min(1)
        last = x[torch.arange(len(x), device=x.device), lengths - 1][:, None]
        x = torch.where(mask[..., None], x, last)
    return torch.cat([x[:, :1].expand(-1, left, -1), x, last.expand(-1, right, -1)], dim=1)


def _depthwise(x: Tensor, taps: Tensor, stride: int = 1) -> Tensor:
    """Correlate every channel of (batch, frames, dim) with the same taps."""
    dim = x.shape[2]
    weight = taps.expand(dim, 1, 1, -1)
    filtered = F.conv2d(x.transpose(1, 2).unsqueeze(2), weight, stride=(1, stride), groups=dim)
    return filtered.squeeze(2).transpose(1, 2)


@lru_cache
def _block_filters(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Both filters as banded matrices over one block: (2 * BLOCK, BLOCK + 6) up, (BLOCK, 2 * BLOCK + 10) down."""
    taps = torch.tensor(low_pass(), dtype=dtype)
    up = torch.zeros(2 * BLOCK, BLOCK + 2 * MARGIN, dtype=dtype)
    down = torch.zeros(BLOCK, 2 * BLOCK + TAPS - 2, dtype=dtype)
    for frame in range(BLOCK):
        up[2 * frame, frame : frame + 6] = 2 * taps[1::2].flip(0)
        up[2 * frame + 1, frame + 1 : frame + 7] = 2 * taps[0::2].flip(0)
        down[frame, 2 * frame : 2 * frame + TAPS] = taps
    return up, down


@torch.no_grad()
def _in_blocks(x: Tensor, alpha: Tensor, root: Tensor, mask: Tensor | None) -> Tensor:
    """The same on the CPU without gradients, without writing the doubled signal to memory: 2 to 4 times as fast.

    A stretch of frames goes through all steps while it is in the cache. Both filters are small matrix products over
    overlapping blocks of frames, which are views: nothing is padded but the two ends.
    """
    batch, frames, dim = x.shape
    x = x.contiguous()
    out = torch.empty_like(x)
    lengths = [frames] * batch if mask is None else lengths_from_mask(mask).tolist()
    blocks = max(1, VALUES_AT_ONCE * torch.get_num_threads() // (BLOCK * dim))
    buffers = _Buffers(x, blocks)
    for row, length in enumerate(lengths):
        for start in range(0, length, blocks * BLOCK):
            stop = min(start + blocks * BLOCK, length)
            if (needed := -(-(stop - start) // BLOCK)) != buffers.blocks:
                buffers = _Buffers(x, needed)
            _stretch(x[row, :length], out[row], start, stop, alpha, root, buffers)
        out[row, length:] = 0
    return out


class _Buffers:
    """Memory for a stretch of so many blocks, and the views of it: made once, used for every stretch."""

    def __init__(self, like: Tensor, blocks: int):
        up, down = _block_filters(like.dtype)
        dim = like.shape[2]
        self.blocks = blocks
        # the doubled signal of a stretch begins 6 samples early, and has to end 5 samples late: in whole blocks
        self.count = blocks - (1 - TAPS) // (2 * BLOCK)
        self.doubled = like.new_empty(self.count, 2 * BLOCK, dim)
        self.samples = self.doubled.view(-1, dim)
        self.sine = torch.empty_like(self.doubled)
        self.window_shape = (self.count, BLOCK + 2 * MARGIN, dim), (BLOCK * dim, dim, 1)
        self.up = up.expand(self.count, -1, -1)
        self.down = down.expand(blocks, -1, -1)
        self.down_windows = self.doubled.as_strided(
            (blocks, 2 * BLOCK + TAPS - 2, dim), (2 * BLOCK * dim, dim, 1), dim
        )


def _stretch(
    x: Tensor, out: Tensor, start: int, stop: int, alpha: Tensor, root: Tensor, buffers: _Buffers
) -> None:
    """Frames `start` to `stop` of one row, x (length, dim) -> out."""
    length, dim = x.shape
    # the frames of x that the stretch depends on
    first, end = start - 2 * MARGIN, start + BLOCK * buffers.count
    if first < 0 or end > length:
        x, first = x[torch.arange(first, end).clamp(0, length - 1)], 0
    windows = x.as_strided(*buffers.window_shape, x.storage_offset() + first * dim)
    doubled, sine, samples = buffers.doubled, buffers.sine, buffers.samples
    torch.bmm(buffers.up, windows, out=doubled)
    torch.mul(doubled, alpha, out=sine)
    sine.sin_().mul_(root)
    doubled.addcmul_(sine, sine)  # from sample 2 * start - 6
    if start == 0:
        samples[:6] = samples[6]
    if (behind := 2 * (length - start) + 6) < len(samples):
        samples[behind:] = samples[behind - 1]
    if stop - start == buffers.blocks * BLOCK:
        torch.bmm(buffers.down, buffers.down_windows, out=out[start:stop].view(buffers.blocks, BLOCK, dim))
    else:
        out[start:stop] = torch.bmm(buffers.down, buffers.down_windows).view(-1, dim)[: stop - start]
