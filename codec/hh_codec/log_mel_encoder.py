"""An encoder that starts from log-mel: trains tens of times faster than one on the waveform, and streams exactly."""

import torch.nn.functional as F
from torch import Tensor, nn

from codec.hh_codec.configuration import LogMelEncoderConfig
from codec.nn.blocks import ConvNeXtBlock, FrameConv, RowLSTM
from codec.nn.mel import LogMel
from codec.nn.streaming import StreamState, windows_input


class LogMelEncoder(nn.Module):
    """Log-mel at four frames a code, ConvNeXt, a strided convolution, ConvNeXt, LSTM.

    All look-ahead sits in the first convolution (a network that is causal behind it can wait, and what it may know of
    the future is the same), so that only one module has to delay its output in a stream.
    """

    def __init__(self, config: LogMelEncoderConfig):
        super().__init__()
        self.config = config
        self.mel = LogMel(config.mel)
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
        x = (self.mel(waveform, state) - config.mel_mean) / config.mel_std  # (batch, mel frames, n_mels)
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

    @property
    def output_layer(self) -> nn.Linear:
        """The affine layer that ends the encoder, for its initialisation from data."""
        return self.proj_out
