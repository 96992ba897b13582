"""The semantic stream: ConvNeXt, one factorised quantizer, ConvNeXt. Its codes carry the words (arXiv 2606.06743)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from codec.hybrid_codec.configuration import HybridQuantizerConfig
from codec.hybrid_codec.factorized_vq import FactorizedVQ
from codec.nn.blocks import ConvNeXtBlock
from codec.nn.precision import at_least_float32
from codec.nn.streaming import StreamState


@dataclass
class SemanticStreamOutput:
    """What the stream gives in training."""

    latent: Tensor  # (batch, frames, dim) decoded from the quantized stream; what a teacher pulls at
    codes: Tensor  # (batch, frames) int64
    loss: Tensor  # scalar, of the quantizer
    commitment: Tensor  # scalar: mean squared distance of projected latent and entry


class SemanticStream(nn.Module):
    """Latent to semantic codes, and codes to the part of the latent that they stand for."""

    def __init__(self, config: HybridQuantizerConfig, *, exported: bool):
        super().__init__()
        dim = config.semantic_dim

        def blocks() -> nn.ModuleList:
            return nn.ModuleList(
                ConvNeXtBlock(
                    dim,
                    config.semantic_hidden_dim,
                    config.layer_scale,
                    config.kernel_size,
                    lookahead=config.lookahead,
                )
                for _ in range(config.semantic_blocks)
            )

        self.proj_in = nn.Linear(config.dim, dim)
        self.encoder = blocks()
        self.quantizer = FactorizedVQ(
            dim,
            config.semantic_codebook_size,
            config.codebook_dim,
            config.commitment,
            exported=exported,
            transform_dim=config.codebook_transform_dim,
        )
        self.decoder = blocks()
        self.proj_out = nn.Linear(dim, config.dim)

    def forward(
        self, latent: Tensor, mask: Tensor | None = None, total: Tensor | float | None = None
    ) -> SemanticStreamOutput:
        """(batch, frames, dim), mask (batch, frames) -> the stream's part of it, codes, VQ loss."""
        output = self.quantizer(self._before(latent, mask, None), mask, total)
        return SemanticStreamOutput(
            latent=self._behind(output.latent, mask, None),
            codes=output.codes,
            loss=output.loss,
            commitment=output.commitment,
        )

    def encode(self, latent: Tensor, mask: Tensor | None = None, state: StreamState | None = None) -> Tensor:
        """(batch, frames, dim) -> (batch, frames) int64 codes."""
        return self.quantizer.encode(self._before(latent, mask, state))

    def decode(self, codes: Tensor, mask: Tensor | None = None, state: StreamState | None = None) -> Tensor:
        """(batch, frames) int64 -> the latent that they stand for (batch, frames, dim)."""
        return self._behind(self.quantizer.decode(codes), mask, state)

    def _before(self, latent: Tensor, mask: Tensor | None, state: StreamState | None) -> Tensor:
        x = self.proj_in(latent)
        for block in self.encoder:
            x = block(x, mask, state)
        return x

    def _behind(self, x: Tensor, mask: Tensor | None, state: StreamState | None) -> Tensor:
        for block in self.decoder:
            x = block(x, mask, state)
        # what the acoustic quantizers see is the difference of two large numbers: not in 16 bits
        with torch.autocast(x.device.type, enabled=False):
            return self.proj_out(at_least_float32(x))
