"""Blocks over frames, shared by encoders, decoders and vocoders.

Everything here is (batch, frames, dim): pointwise layers are then plain matrix products, and depthwise convolutions run
as channels-last 2-D ones, several times faster on the CPU than `conv1d` on (batch, dim, frames).
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.nn.kernels import Pointwise, is_plain_inference, linear, linear_gelu
from codec.nn.sequences import StreamState, windows_input, zero_beyond


class FrameConv(nn.Conv1d):
    """A convolution along frames with `left` frames of context and `right` of look-ahead, zeros beyond the ends."""

    def __init__(
        self, in_dim: int, out_dim: int, kernel_size: int, lookahead: int | None = None, groups: int = 1
    ):
        super().__init__(in_dim, out_dim, kernel_size, groups=groups)
        self.right = (kernel_size - 1) // 2 if lookahead is None else lookahead
        self.left = kernel_size - 1 - self.right

    def forward(self, x: Tensor, mask: Tensor | None = None, state: StreamState | None = None) -> Tensor:
        """(batch, frames, in_dim) -> (batch, frames, out_dim).

        What lies beyond a row's length in the (batch, frames) `mask` counts as zero: a row does not depend on the rest
        of its batch. With a state, frames come out as soon as their look-ahead is there.
        """
        if self.right:
            x = zero_beyond(x, mask)
        x = windows_input(x, self, state, left=self.left, right=self.right)
        if x.shape[1] < self.kernel_size[0]:
            return x.new_zeros(x.shape[0], 0, self.out_channels)
        if self.groups == 1 and self._has_few(x) and self.bias is not None:
            # one matrix product: a convolution would first bring the weights into an order of its own
            windows = x.unfold(1, self.kernel_size[0], 1).flatten(2)  # (batch, frames, in_dim * kernel_size)
            return linear(windows, self.weight.flatten(1), self.bias)
        x = x.transpose(1, 2).unsqueeze(2)  # (batch, in_dim, 1, frames), channels last in memory
        x = F.conv2d(x, self.weight.unsqueeze(2), self.bias, groups=self.groups)
        return x.squeeze(2).transpose(1, 2)  # (batch, frames, out_dim)

    def _has_few(self, x: Tensor) -> bool:
        """Whether there are so few frames, on the CPU, that handling the weights is a good part of the work."""
        return is_plain_inference(x, self.weight) and x.shape[0] * x.shape[1] <= self.in_channels


class ConvNeXtBlock(nn.Module):
    """ConvNeXt over frames: depthwise convolution, layer norm, pointwise expansion with GELU, layer scale, residual.

    Layer names follow Vocos (arXiv 2306.00814, section 3.3). `layer_scale` None: without.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        layer_scale: float | None,
        kernel_size: int = 7,
        lookahead: int | None = None,
        condition_dim: int = 0,
    ):
        super().__init__()
        self.dwconv = FrameConv(dim, dim, kernel_size, lookahead, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.condition = Pointwise(condition_dim, 2 * dim) if condition_dim else None
        if self.condition is not None:
            self.condition.init_scale = 0.0  # at first as without it (adaLN-Zero, arXiv 2212.09748)
        self.pwconv1 = Pointwise(dim, hidden_dim)
        self.pwconv2 = Pointwise(hidden_dim, dim)
        self.gamma = None if layer_scale is None else nn.Parameter(torch.full((dim,), layer_scale))
        if layer_scale is None:
            self.pwconv2.init_scale = 0.3  # the branch starts small, as a layer scale would make it

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        state: StreamState | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """(batch, frames, dim) -> (batch, frames, dim).

        A block with `condition_dim` needs `condition` (batch, condition_dim), which scales and shifts its norm.
        """
        if state is not None and self.dwconv.right:
            raise ValueError("a ConvNeXt block with look-ahead cannot stream")
        h = self.norm(self.dwconv(x, mask, state))
        if self.condition is not None:
            scale, shift = self.condition(condition)[:, None].chunk(2, dim=-1)  # (batch, 1, dim) each
            h = torch.addcmul(shift, h, 1 + scale)
        h = linear_gelu(h, self.pwconv1.weight, self.pwconv1.bias)
        h = self.pwconv2(h)
        return x + h if self.gamma is None else torch.addcmul(x, self.gamma, h)


class MaskedGroupNorm(nn.GroupNorm):
    """Group norm over (batch, frames, dim) whose statistics are taken over a row's own frames only."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, frames, dim) -> (batch, frames, dim)."""
        batch, frames, dim = x.shape
        groups = x.reshape(batch, frames, self.num_groups, dim // self.num_groups)
        if mask is None:
            mean = groups.mean(dim=(1, 3), keepdim=True)
            variance = (groups - mean).square().mean(dim=(1, 3), keepdim=True)
        else:
            weight = mask[:, :, None, None].to(x.dtype)
            count = (weight.sum(dim=1, keepdim=True) * groups.shape[3]).clamp_min(1)
            mean = (groups * weight).sum(dim=(1, 3), keepdim=True) / count
            variance = ((groups - mean).square() * weight).sum(dim=(1, 3), keepdim=True) / count
        normed = ((groups - mean) * torch.rsqrt(variance + self.eps)).reshape(batch, frames, dim)
        return normed * self.weight + self.bias


class FrameNorm(nn.LayerNorm):
    """Layer norm over channels with the call of `MaskedGroupNorm`: what a streaming block uses in its place."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, frames, dim) -> (batch, frames, dim)."""
        return super().forward(x)


def block_norm(dim: int, streaming: bool) -> nn.Module:
    """The norm of a residual or attention block: group norm over time, or layer norm where it must stream."""
    return FrameNorm(dim, eps=1e-6) if streaming else MaskedGroupNorm(32, dim, eps=1e-6)


class ResidualBlock(nn.Module):
    """Norm, swish, kernel-3 convolution, twice, with dropout between; residual (HH-Codec's decoder, section 3.3)."""

    def __init__(self, dim: int, dropout: float, streaming: bool):
        super().__init__()
        lookahead = 0 if streaming else None
        self.norm1 = block_norm(dim, streaming)
        self.conv1 = FrameConv(dim, dim, 3, lookahead)
        self.norm2 = block_norm(dim, streaming)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = FrameConv(dim, dim, 3, lookahead)

    def forward(self, x: Tensor, mask: Tensor | None = None, state: StreamState | None = None) -> Tensor:
        """(batch, frames, dim) -> (batch, frames, dim)."""
        h = self.conv1(F.silu(self.norm1(x, mask)), mask, state)
        h = self.conv2(self.dropout(F.silu(self.norm2(h, mask))), mask, state)
        return x + h


class FrameAttention(nn.Module):
    """Single-head self-attention without positions; over the whole utterance, or causal over a window of frames."""

    def __init__(self, dim: int, window: int | None):
        super().__init__()
        self.window = window  # frames that a frame sees, itself included; None: all, both ways
        self.norm = block_norm(dim, window is not None)
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj_out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None, state: StreamState | None = None) -> Tensor:
        """(batch, frames, dim) -> (batch, frames, dim); keys beyond a row's length are masked."""
        h = self.norm(x, mask)
        query, key, value = self.q(h), self.k(h), self.v(h)
        past = 0
        if state is not None:
            if self.window is None:
                raise ValueError("attention over the whole utterance cannot stream")
            if (remembered := state.get(self)) is not None:
                past = remembered[0].shape[1]
                key, value = torch.cat([remembered[0], key], dim=1), torch.cat([remembered[1], value], dim=1)
            keep = min(self.window - 1, key.shape[1])
            state.put(self, (key[:, key.shape[1] - keep :], value[:, value.shape[1] - keep :]))
        if x.shape[1] == 0:
            return x
        allowed = None
        if self.window is not None:
            # causality already hides what lies beyond a row's length from the row's own frames
            distance = torch.arange(past, past + x.shape[1], device=x.device)[:, None] - torch.arange(
                key.shape[1], device=x.device
            )
            allowed = (distance >= 0) & (distance < self.window)
        elif mask is not None:
            allowed = mask[:, None, :].expand(-1, x.shape[1], -1)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        return x + self.proj_out(attended)


class RowLSTM(nn.Module):
    """LSTM over frames that stops at each row's own length, with a residual connection.

    Bidirectional: the input is repeated to the output's width before it is added (HH-Codec, section 3.1); the batch is
    packed, so that the backward direction starts at a row's own last frame. One-directional: nothing behind a row's end
    can reach it, so it runs unpacked, and it streams.
    """

    def __init__(self, dim: int, num_layers: int, bidirectional: bool):
        super().__init__()
        self.bidirectional = bidirectional
        self.lstm = nn.LSTM(dim, dim, num_layers, batch_first=True, bidirectional=bidirectional)

    @property
    def out_dim(self) -> int:
        """Width of the output."""
        return self.lstm.hidden_size * (2 if self.bidirectional else 1)

    def forward(self, x: Tensor, mask: Tensor | None = None, state: StreamState | None = None) -> Tensor:
        """(batch, frames, dim) -> (batch, frames, out_dim)."""
        if not self.bidirectional:
            if x.shape[1] == 0:
                return x
            past = None if state is None else state.get(self)
            if past is not None:
                past = tuple(memory.transpose(0, 1).contiguous() for memory in past)
            h, memories = self.lstm(x, past)
            if state is not None:
                # (batch, layers, dim): a stream's rows come first, as in all that it remembers
                state.put(self, tuple(memory.transpose(0, 1) for memory in memories))
            return x + h
        if state is not None:
            raise ValueError("a bidirectional LSTM cannot stream")
        skip = torch.cat([x, x], dim=-1)
        if mask is None:
            return skip + self.lstm(x)[0]
        lengths = mask.sum(dim=1).clamp_min(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        h, _ = nn.utils.rnn.pad_packed_sequence(
            self.lstm(packed)[0], batch_first=True, total_length=x.shape[1]
        )
        return skip + h


@torch.no_grad()
def init_layer(module: nn.Module) -> None:
    """Start a layer as all networks of this project do; what has layers inside, and norms, stay as they are built."""
    if callable(reset := getattr(module, "reset_buffers", None)):
        reset()  # constants that are not stored: windows of STFTs, mel filters
    elif isinstance(module, nn.Linear | nn.Conv1d) and not nn.utils.parametrize.is_parametrized(module):
        nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        module.weight.mul_(getattr(module, "init_scale", 1.0))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


# ---- weight norm: the same layer, stored in one of four ways

# endings of (length, direction): torch's parametrization, and torch's older hook, which published files use
_PAIRS = (
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    ("weight_g", "weight_v"),
)


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with `x.weight` in the place of every pair of length and direction."""
    folded = dict(state)
    for length_ending, direction_ending in _PAIRS:
        for name in [name for name in folded if name.endswith(f".{direction_ending}")]:
            layer = name.removesuffix(direction_ending)
            if f"{layer}{length_ending}" in folded:
                direction, length = folded.pop(name), folded.pop(f"{layer}{length_ending}")
                folded[f"{layer}weight"] = torch._weight_norm(direction, length, 0)
    return folded


def fit_weight_norm(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """A state dict in the form that `module` holds its weights in: with weight norm where the module has it.

    A weight becomes its own direction, and the lengths of its rows.
    """
    fitted = fold_weight_norm(state)
    length_ending, direction_ending = _PAIRS[0]
    for name in module.state_dict():
        if name.endswith(direction_ending):
            layer = name.removesuffix(direction_ending)
            if (weight := fitted.pop(f"{layer}weight", None)) is not None:
                fitted[name] = weight
                fitted[f"{layer}{length_ending}"] = torch.norm_except_dim(weight, 2, 0)
    return fitted
