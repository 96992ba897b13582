"""HH-Codec's encoders: the published SEANet on the waveform (arXiv 2507.18897, section 3.1), and one on log-mel."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codec.hh_codec.configuration import LogMelEncoderConfig, SEANetConfig
from codec.hh_codec.voice import VoiceEncoder
from codec.nn.blocks import ConvNeXtBlock, FrameConv, RowLSTM
from codec.nn.mel import NORMAL_LEVEL, LogMel, RunningLevel
from codec.nn.sequences import StreamState, lengths_from_mask, mask_from_lengths, windows_input


class CausalConv(nn.Module):
    """Convolution over samples that sees only the past; the start is reflected, as in EnCodec, or zeros.

    A row shorter than its reflection is first extended by zeros: what lies behind a row must therefore be zero already.
    """

    channel_dim = 1  # of the output

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        kernel_size: int,
        stride: int = 1,
        *,
        folded: bool,
        reflects: bool = True,
    ):
        super().__init__()
        self.reflects = reflects
        conv = nn.Conv1d(in_dim, out_dim, kernel_size, stride)
        self.conv: nn.Conv1d = conv if folded else weight_norm(conv)
        self.padding = kernel_size - stride

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        """(batch, in_dim, samples) -> (batch, out_dim, samples / stride), for whole strides.

        With a state (zeros only), what comes out is what the samples that are there complete.
        """
        if not self.reflects:
            x = windows_input(x, self, state, left=self.padding, right=0, stride=self.conv.stride[0], dim=2)
            if x.shape[-1] < self.conv.kernel_size[0]:
                return x.new_zeros(x.shape[0], self.conv.out_channels, 0)
        elif self.padding:
            missing = max(0, self.padding + 1 - x.shape[-1])
            start = F.pad(x[..., : self.padding + 1], (0, missing))[..., 1:].flip(-1)
            x = torch.cat([start, x], dim=-1)
        return self.conv(x)


class ResidualUnit(nn.Module):
    """ELU, kernel-3 convolution to half the width, ELU, 1x1 back; a 1x1 convolution as shortcut."""

    def __init__(self, dim: int, kernel_size: int, *, folded: bool, reflects: bool):
        super().__init__()
        self.conv1 = CausalConv(dim, dim // 2, kernel_size, folded=folded, reflects=reflects)
        self.conv2 = CausalConv(dim // 2, dim, 1, folded=folded, reflects=reflects)
        self.shortcut = CausalConv(dim, dim, 1, folded=folded, reflects=reflects)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        """(batch, dim, samples) -> (batch, dim, samples)."""
        h = self.conv2(F.elu(self.conv1(F.elu(x), state), inplace=True), state)
        return self.shortcut(x, state) + h


class SEANetEncoder(nn.Module):
    """Waveform to latent: residual units and strided convolutions, then an LSTM, as published."""

    def __init__(self, config: SEANetConfig, *, folded: bool):
        super().__init__()
        self.config = config
        dim = config.num_filters
        reflects = config.padding == "reflect"
        self.first = CausalConv(1, dim, config.kernel_size, folded=folded, reflects=reflects)
        self.units = nn.ModuleList()
        self.downsamples = nn.ModuleList()
        for ratio in config.ratios:
            self.units.append(
                ResidualUnit(dim, config.residual_kernel_size, folded=folded, reflects=reflects)
            )
            self.downsamples.append(
                CausalConv(dim, 2 * dim, 2 * ratio, ratio, folded=folded, reflects=reflects)
            )
            dim *= 2
        self.lstm = RowLSTM(dim, config.lstm_layers, config.bidirectional)
        self.last = CausalConv(
            self.lstm.out_dim, config.dim, config.last_kernel_size, folded=folded, reflects=reflects
        )

    def forward(
        self, waveform: Tensor, frame_mask: Tensor | None = None, state: StreamState | None = None
    ) -> Tensor:
        """(batch, samples in whole hops, zero beyond each row's frames) -> (batch, frames, dim)."""
        if state is not None and not self.config.streams:
            raise ValueError(
                "this encoder cannot stream: its ends are reflected, or its LSTM looks at the whole utterance"
            )
        lengths = None if frame_mask is None else lengths_from_mask(frame_mask) * self.config.hop_length
        x = self.first(waveform[:, None], state)  # (batch, filters, samples)
        for ratio, unit, downsample in zip(self.config.ratios, self.units, self.downsamples, strict=True):
            # causal: what is behind a row's end reaches the row only where a very short row is reflected
            x = self._zero_beyond(F.elu(unit(x, state), inplace=True), lengths)
            x = downsample(x, state)
            lengths = None if lengths is None else lengths // ratio
        x = self.lstm(x.transpose(1, 2), frame_mask, state).transpose(1, 2)  # (batch, lstm dim, frames)
        x = self.last(self._zero_beyond(F.elu(x), lengths), state)
        return x.transpose(1, 2)

    @staticmethod
    def _zero_beyond(x: Tensor, lengths: Tensor | None) -> Tensor:
        if lengths is None:
            return x
        return x.masked_fill(~mask_from_lengths(lengths, x.shape[-1])[:, None], 0.0)

    @property
    def output_layer(self) -> nn.Conv1d:
        """The affine layer that ends the encoder, for its initialisation from data."""
        return self.last.conv


class LogMelEncoder(nn.Module):
    """Log-mel at four frames a code, ConvNeXt, a strided convolution, ConvNeXt, LSTM.

    It trains tens of times faster than an encoder on the waveform, and streams exactly. All look-ahead sits in the
    first convolution, so that only one module has to delay its output in a stream; the layers behind it are causal.
    """

    def __init__(self, config: LogMelEncoderConfig):
        super().__init__()
        self.config = config
        self.mel = LogMel(config.mel)
        rate = config.mel.sampling_rate / config.mel.hop_length
        self.level = RunningLevel(rate) if config.level == "running" else None
        self.embed = FrameConv(
            config.mel.n_mels, config.mel_dim, config.kernel_size + config.lookahead, config.lookahead
        )
        self.norm = nn.LayerNorm(config.mel_dim, eps=1e-6)
        self.mel_blocks = self._blocks(config.mel_blocks, config.mel_dim)
        self.downsample = nn.Linear(config.stride * config.mel_dim, config.frame_dim)
        self.frame_blocks = self._blocks(config.frame_blocks, config.frame_dim)
        self.lstm = RowLSTM(config.frame_dim, config.lstm_layers, bidirectional=False)
        self.final_norm = nn.LayerNorm(config.frame_dim, eps=1e-6)
        self.proj_out = nn.Linear(config.frame_dim, config.dim)
        self.voice_encoder = None if config.voice is None else VoiceEncoder(config.voice, config.mel.n_mels)

    def _blocks(self, count: int, dim: int) -> nn.ModuleList:
        config = self.config
        return nn.ModuleList(
            ConvNeXtBlock(dim, config.hidden_ratio * dim, config.layer_scale, config.kernel_size, lookahead=0)
            for _ in range(count)
        )

    def forward(
        self, waveform: Tensor, frame_mask: Tensor | None = None, state: StreamState | None = None
    ) -> Tensor:
        """(batch, samples in whole hops, zero beyond each row's frames) -> (batch, frames, dim)."""
        config = self.config
        x = self.standardized_mel(waveform, state)
        mel_mask = None if frame_mask is None else frame_mask.repeat_interleave(config.stride, dim=1)
        x = self.norm(self.embed(x, mel_mask, state))
        for block in self.mel_blocks:
            x = block(x, mel_mask, state)
        x = windows_input(x, self, state, left=0, right=0, stride=config.stride)
        frames = x.shape[1] // config.stride
        x = x[:, : frames * config.stride].reshape(x.shape[0], frames, config.stride * config.mel_dim)
        x = self.downsample(F.gelu(x))  # (batch, frames, frame_dim)
        for block in self.frame_blocks:
            x = block(x, frame_mask, state)
        return self.proj_out(self.final_norm(self.lstm(x, frame_mask, state)))

    def standardized_mel(self, waveform: Tensor, state: StreamState | None = None) -> Tensor:
        """(batch, samples) -> what the first layer reads, (batch, mel frames, n_mels)."""
        return (self.mel(waveform, state, self.level) - self.config.mel_mean) / self.config.mel_std

    def normalized(self, waveform: Tensor) -> Tensor:
        """(batch, samples) -> the same as loud as all that the decoder says, if the codec does not keep the level."""
        if self.level is None:
            return waveform
        with torch.no_grad():
            loudest = self.level.levels(self.mel(waveform).exp()).amax(dim=1, keepdim=True)
        return waveform * (NORMAL_LEVEL * 10 ** (-loudest / 2)).to(waveform.dtype)

    def voice_of(self, waveform: Tensor, lengths: Tensor | None) -> Tensor:
        """Who speaks, of an encoder with a voice encoder: (batch, samples), own `lengths` -> (batch, voice dim)."""
        assert self.voice_encoder is not None
        hop = self.config.mel.hop_length
        mel = self.standardized_mel(F.pad(waveform, (0, -waveform.shape[1] % hop)))
        if lengths is None:
            return self.voice_encoder(mel)
        own = ((lengths + hop - 1) // hop).clamp(max=mel.shape[1])
        return self.voice_encoder(mel, mask_from_lengths(own, mel.shape[1]))

    @property
    def output_layer(self) -> nn.Linear:
        """The affine layer that ends the encoder, for its initialisation from data."""
        return self.proj_out
