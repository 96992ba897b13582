"""Who speaks, as one short vector of a recording, so that the codes need not carry it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.hh_codec.configuration import VoiceConfig
from codec.nn.blocks import ConvNeXtBlock, FrameConv
from codec.nn.sequences import masked_mean_over_frames


class VoiceEncoder(nn.Module):
    """Log-mel to one vector: ConvNeXt, then mean and deviation over time (statistics pooling, arXiv 1803.10963).

    Mean and deviation do not know the order of frames, and so few numbers a recording cannot spell its words
    (a global vector beside the codes: arXiv 2503.01710, 2602.00594).
    """

    def __init__(self, config: VoiceConfig, n_mels: int):
        super().__init__()
        self.config = config
        self.embed = FrameConv(n_mels, config.hidden_dim, 5)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(config.hidden_dim, 3 * config.hidden_dim, 0.3) for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(config.hidden_dim, eps=1e-6)
        self.proj_out = nn.Linear(2 * config.hidden_dim, config.dim)

    def forward(self, mel: Tensor, mask: Tensor | None = None) -> Tensor:
        """Standardised log-mel (batch, frames, n_mels), mask (batch, frames) -> (batch, dim), mean 0, deviation 1."""
        x = self.embed(mel, mask)
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        mean = masked_mean_over_frames(x, mask)
        variance = masked_mean_over_frames((x - mean[:, None]).square(), mask)
        statistics = torch.cat([mean, (variance + 1e-5).sqrt()], dim=1)  # (batch, 2 * hidden_dim)
        return F.layer_norm(self.proj_out(statistics), (self.config.dim,))
