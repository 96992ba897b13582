"""Quantized latent to mel: context and ConvNeXt blocks at the frame rate, learned upsampling, finer ConvNeXt blocks."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from codec.hh_codec.configuration import MelDecoderConfig
from codec.nn.blocks import ConvNeXtBlock, FrameAttention, FrameConv, ResidualBlock, block_norm
from codec.nn.kernels import Pointwise, at_weights_precision
from codec.nn.mel import MelConfig
from codec.nn.sequences import StreamState, lengths_from_mask, mask_from_lengths

Frames = TypeVar("Frames", int, Tensor)


class MelDecoder(nn.Module):
    """The decoder of HH-Codec (arXiv 2507.18897, section 3.3), ending at any vocoder's mel.

    Published up to the last ConvNeXt block. Then, as published, a transposed convolution straight to the mel (with
    `fine_dim` None); or one to `upsample` times the frame rate, a few narrow ConvNeXt blocks there, linear
    interpolation to the vocoder's own mel frames, and a linear head. (Interpolating straight into a pointwise head can
    only draw piecewise-linear mels.) Where the mel's rate is the fine rate already, nothing is interpolated.
    """

    def __init__(
        self,
        config: MelDecoderConfig,
        latent_dim: int,
        hop_length: int,
        mel: MelConfig,
        voice_dim: int = 0,
    ):
        super().__init__()
        self.config = config
        self.mel_config = mel
        self.hop_length = hop_length
        self.fine_hop = hop_length // config.upsample  # samples between frames at the fine rate
        self.interpolates = not (mel.alignment == "same" and mel.hop_length == self.fine_hop)
        dim, streaming = config.dim, config.streams
        lookahead = 0 if streaming else None
        window = config.attention_window
        self.embed = FrameConv(latent_dim, dim, config.kernel_size, config.lookahead)
        self.context = nn.ModuleList(
            [
                *(ResidualBlock(dim, config.dropout, streaming) for _ in range(config.residual_blocks)),
                FrameAttention(dim, window),
                *(ResidualBlock(dim, config.dropout, streaming) for _ in range(config.residual_blocks)),
            ]
        )
        self.context_norm = block_norm(dim, streaming)
        self.norm = nn.LayerNorm(dim, eps=1e-6)

        def blocks(count: int, width: int) -> nn.ModuleList:
            hidden, scale = config.hidden_ratio * width, config.layer_scale
            return nn.ModuleList(
                ConvNeXtBlock(width, hidden, scale, config.kernel_size, lookahead, voice_dim)
                for _ in range(count)
            )

        self.convnext = blocks(config.blocks, dim)
        self.final_norm = nn.LayerNorm(dim, eps=1e-6)
        if config.fine_dim is None:
            self.mel_head = nn.ConvTranspose1d(dim, mel.n_mels, config.upsample, config.upsample)
            return
        # a transposed convolution whose kernel is its stride is a linear layer to `upsample` frames side by side
        self.upsample = Pointwise(dim, config.upsample * config.fine_dim)
        self.fine = blocks(config.fine_blocks, config.fine_dim)
        self.fine_norm = nn.LayerNorm(config.fine_dim, eps=1e-6)
        self.head = nn.Linear(config.fine_dim, mel.n_mels)

    @property
    def mel_bias(self) -> Tensor:
        """(n_mels,) added last, in units of `mel_std`: for its initialisation from data."""
        bias = (self.mel_head if self.config.fine_dim is None else self.head).bias
        assert bias is not None
        return bias

    def mel_mask(self, frame_mask: Tensor) -> Tensor:
        """(batch, frames) -> (batch, mel frames): which mel frames belong to a row of so many codec frames."""
        if not self.interpolates:
            return frame_mask.repeat_interleave(self.config.upsample, dim=1)
        return mask_from_lengths(
            self.mel_frames(lengths_from_mask(frame_mask)), self.mel_frames(frame_mask.shape[1])
        )

    def mel_frames(self, frames: Frames) -> Frames:
        """Mel frames the vocoder needs to give `frames * hop_length` samples; a number, or a tensor of numbers."""
        samples = frames * self.hop_length
        hop = self.mel_config.hop_length
        extra = 1 if self.mel_config.alignment == "center" else 0
        return (samples + hop - 1) // hop + extra

    def forward(
        self,
        latent: Tensor,
        frame_mask: Tensor | None = None,
        state: StreamState | None = None,
        voice: Tensor | None = None,
    ) -> Tensor:
        """(batch, frames, latent_dim), voice (batch, voice_dim) -> (batch, mel frames, n_mels), natural log."""
        config = self.config
        x = self.embed(latent, frame_mask, state)
        for block in self.context:
            x = block(x, frame_mask, state)
        x = self.norm(self.context_norm(x, frame_mask))
        for block in self.convnext:
            x = block(x, frame_mask, state, voice)
        x = self.final_norm(x)
        if config.fine_dim is None:
            with at_weights_precision(self.mel_head, x) as x:
                x = self.mel_head(x.transpose(1, 2)).transpose(1, 2)
                return x * config.mel_std + config.mel_mean
        x = self.upsample(x)
        # (batch, fine frames, fine_dim)
        x = x.reshape(x.shape[0], x.shape[1] * config.upsample, config.fine_dim)
        fine_mask = None if frame_mask is None else frame_mask.repeat_interleave(config.upsample, dim=1)
        for block in self.fine:
            x = block(x, fine_mask, state, voice)
        x = self.fine_norm(x)
        if self.interpolates:
            if state is not None:
                raise ValueError("a decoder that interpolates its mel frames cannot stream")
            x = self._interpolate(x, fine_mask)
        with at_weights_precision(self.head, x) as x:
            return self.head(x) * config.mel_std + config.mel_mean

    def _interpolate(self, x: Tensor, fine_mask: Tensor | None) -> Tensor:
        """Linear interpolation to the vocoder's frame centres, clamped to each row's own frames.

        A fixed grid in samples: unlike `interpolate(size=...)`, it does not depend on the length.
        """
        batch, fine_frames, dim = x.shape
        mel_frames = self.mel_frames(fine_frames // self.config.upsample)
        offset = 0.5 if self.mel_config.alignment == "same" else 0.0
        frame = torch.arange(mel_frames, device=x.device, dtype=torch.float64)
        centres = (frame + offset) * self.mel_config.hop_length  # in samples
        position = (centres / self.fine_hop - 0.5)[None]  # (1, mel frames), in fine frames
        last = (
            torch.full((batch, 1), fine_frames - 1, device=x.device)
            if fine_mask is None
            else (lengths_from_mask(fine_mask)[:, None] - 1).clamp_min(0)
        )
        position = torch.minimum(position.clamp_min(0), last.double())  # (batch, mel frames)
        below = position.floor().long()
        above = torch.minimum(below + 1, last)
        share = (position - below).to(x.dtype)[..., None]

        def take(index: Tensor) -> Tensor:
            return x.gather(1, index[..., None].expand(-1, -1, dim))

        return take(below) * (1 - share) + take(above) * share
