"""Vocos: mel to waveform by ConvNeXt and an inverse STFT (arXiv 2306.00814)."""

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.nn.blocks import ConvNeXtBlock, FrameConv
from codec.nn.kernels import Pointwise, at_least_float32, at_weights_precision
from codec.nn.mel import MelConfig
from codec.nn.sequences import StreamState

MAX_MAGNITUDE = 100.0  # as published: keeps an early exponential from exploding


@dataclass(frozen=True)
class VocosConfig:
    """Vocos (arXiv 2306.00814): ConvNeXt on mel frames, then an inverse STFT."""

    kind: Literal["vocos"] = "vocos"
    mel: MelConfig = field(default_factory=MelConfig)
    dim: int = 512
    hidden_dim: int = 1_536
    blocks: int = 8
    kernel_size: int = 7
    # mel frames, in the first convolution; None: half the kernel, in every convolution
    lookahead: int | None = None
    layer_scale: float | None = None  # None: 1 / blocks, as published
    mel_mean: float = 0.0  # what enters the first layer is (mel - mean) / std
    mel_std: float = 1.0

    @property
    def streams(self) -> bool:
        """Whether chunked equals whole."""
        return self.lookahead is not None and self.mel.alignment == "same"

    @property
    def lookahead_samples(self) -> int:
        """Samples that a stream's audio waits for behind the mel frames that are there."""
        return (self.lookahead or 0) * self.mel.hop_length + self.mel.right_padding


class Vocos(nn.Module):
    """Backbone of ConvNeXt blocks and a head that predicts log magnitude and phase of every STFT bin."""

    def __init__(self, config: VocosConfig):
        super().__init__()
        self.config = config
        scale = config.layer_scale if config.layer_scale is not None else 1 / config.blocks
        inner_lookahead = None if config.lookahead is None else 0
        self.embed = FrameConv(config.mel.n_mels, config.dim, config.kernel_size, config.lookahead)
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.convnext = nn.ModuleList(
            ConvNeXtBlock(config.dim, config.hidden_dim, scale, config.kernel_size, inner_lookahead)
            for _ in range(config.blocks)
        )
        self.final_layer_norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.head = ISTFTHead(config)

    def forward(
        self,
        mel: Tensor,
        samples: int | None,
        mel_mask: Tensor | None = None,
        state: StreamState | None = None,
    ) -> Tensor:
        """(batch, mel frames, n_mels) natural-log mel -> (batch, `samples`) waveform.

        In a stream, `samples` is None: as many samples come out as are complete.
        """
        x = (mel - self.config.mel_mean) / self.config.mel_std
        x = self.norm(self.embed(x, mel_mask, state))
        for block in self.convnext:
            x = block(x, mel_mask, state)
        waveform = self.head(self.final_layer_norm(x), mel_mask, state)
        return waveform if samples is None else waveform[:, :samples]


class ISTFTHead(nn.Module):
    """Log magnitude and phase of every frame, then windowed overlap-add, normalised by the windows that are there."""

    window: Tensor

    def __init__(self, config: VocosConfig):
        super().__init__()
        mel = config.mel
        self.n_fft, self.hop_length, self.trim = mel.n_fft, mel.hop_length, mel.left_padding
        # a centred STFT of n frames spans (n - 1) hops
        self.missing_hops = 1 if mel.alignment == "center" else 0
        self.out = Pointwise(config.dim, mel.n_fft + 2)
        self.register_buffer("window", torch.empty(mel.n_fft), persistent=False)
        self.reset_buffers()

    def reset_buffers(self) -> None:
        """Fill in the window; `from_pretrained` builds modules without data and calls this again."""
        self.window.copy_(torch.hann_window(self.n_fft))

    def forward(self, x: Tensor, mel_mask: Tensor | None = None, state: StreamState | None = None) -> Tensor:
        """(batch, mel frames, dim) -> (batch, samples)."""
        with at_weights_precision(self.out, x) as x:
            magnitude, phase = at_least_float32(self.out(x)).chunk(
                2, dim=-1
            )  # (batch, mel frames, bins) each
            magnitude = magnitude.exp().clamp(max=MAX_MAGNITUDE)
            spectrum = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
            frames = self._inverse_fft(spectrum) * self.window  # (batch, mel frames, n_fft)
            weights = self.window.square().expand(1, frames.shape[1], -1)
            if mel_mask is not None:
                frames = frames * mel_mask[..., None]
                weights = weights * mel_mask[..., None]
            signal, envelope = self._overlap_add(frames), self._overlap_add(weights)
            if state is None:
                samples = (x.shape[1] - self.missing_hops) * self.hop_length
                signal, envelope = (y[:, self.trim : self.trim + samples] for y in (signal, envelope))
            else:
                signal, envelope = self._complete(signal, envelope, x.shape[1], state)
            # beyond a row's end there may be no window at all
            return signal / envelope.clamp_min(1e-11)

    def _inverse_fft(self, spectrum: Tensor) -> Tensor:
        if spectrum.shape[1] == 0:  # a stream that waits for its look-ahead; the FFT refuses to do nothing
            return spectrum.real.new_zeros(spectrum.shape[0], 0, self.n_fft)
        return torch.fft.irfft(spectrum, self.n_fft, dim=-1)

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """(batch, frames, n_fft) -> (batch, (frames - 1) * hop_length + n_fft); empty for no frames."""
        batch, count, _ = frames.shape
        if count == 0:
            return frames.new_zeros(batch, 0)
        hop = self.hop_length
        hops = -(-self.n_fft // hop)  # that a frame spans
        if missing := hops * hop - self.n_fft:
            frames = F.pad(frames, (0, missing))
        parts = frames.unflatten(2, (hops, hop))  # (batch, count, hops, hop)
        signal = F.pad(parts[:, :, 0], (0, 0, 0, hops - 1))  # (batch, count + hops - 1, hop)
        for number in range(1, hops):
            signal[:, number : number + count] += parts[:, :, number]
        return signal.flatten(1)[:, : (count - 1) * hop + self.n_fft]

    def _complete(
        self, signal: Tensor, envelope: Tensor, frames: int, state: StreamState
    ) -> tuple[Tensor, Tensor]:
        """Add what earlier chunks left open; return what no later frame can change, keep the rest open."""
        batch = signal.shape[0]
        past = state.get(self)
        if past is None:
            past = (signal.new_zeros(batch, 0), envelope.new_zeros(1, 0), self.trim)
        length = max(signal.shape[1], past[0].shape[1])
        signal = F.pad(signal, (0, length - signal.shape[1])) + F.pad(past[0], (0, length - past[0].shape[1]))
        envelope = F.pad(envelope, (0, length - envelope.shape[1])) + F.pad(
            past[1], (0, length - past[1].shape[1])
        )
        # the next frame starts `frames` hops on; at the end, the half window behind the last hop is trimmed as at once
        done = (
            length - (self.n_fft - self.hop_length - self.trim) if state.final else frames * self.hop_length
        )
        skip = min(past[2], done)  # the half window before the first sample
        state.put(self, (signal[:, done:], envelope[:, done:], past[2] - skip))
        return signal[:, skip:done], envelope[:, skip:done]
