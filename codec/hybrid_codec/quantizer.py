"""The quantizer of HybridCodec: a semantic stream, and residual codes of what it leaves of the latent."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from codec.hybrid_codec.configuration import HybridQuantizerConfig
from codec.hybrid_codec.residual_vq import FactorizedVQ, FoldedResidualVQ, ResidualVQ
from codec.nn.blocks import ConvNeXtBlock
from codec.nn.kernels import at_least_float32
from codec.nn.sequences import StreamState


@dataclass
class SemanticStreamOutput:
    """What the stream gives in training."""

    latent: Tensor  # (batch, frames, dim) decoded from the quantized stream; what a teacher pulls at
    codes: Tensor  # (batch, frames) int64
    loss: Tensor  # scalar, of the quantizer
    commitment: Tensor  # scalar: mean squared distance of projected latent and entry


class ConvNeXtStack(nn.ModuleList):
    """ConvNeXt blocks one after the other; of none, the identity."""

    def __init__(self, config: HybridQuantizerConfig, dim: int, blocks: int):
        super().__init__(
            ConvNeXtBlock(
                dim,
                config.semantic_hidden_dim,
                config.layer_scale,
                config.kernel_size,
                lookahead=config.lookahead,
            )
            for _ in range(blocks)
        )

    def forward(self, x: Tensor, mask: Tensor | None = None, state: StreamState | None = None) -> Tensor:
        """(batch, frames, dim), mask (batch, frames) -> (batch, frames, dim)."""
        for block in self:
            x = block(x, mask, state)
        return x


class SemanticStream(nn.Module):
    """ConvNeXt, one factorised quantizer, ConvNeXt: its codes carry the words (arXiv 2606.06743).

    Latent to semantic codes, and codes to the part of the latent that they stand for.
    """

    def __init__(self, config: HybridQuantizerConfig, *, exported: bool):
        super().__init__()
        dim, behind = config.semantic_dim, config.semantic_decoder_blocks
        projects = dim != config.dim  # as published, the stream is as wide as the latent
        self.proj_in = nn.Linear(config.dim, dim) if projects else nn.Identity()
        self.encoder = ConvNeXtStack(config, dim, config.semantic_blocks)
        self.quantizer = FactorizedVQ(config, dim, config.semantic_codebook_size, exported=exported)
        self.decoder = ConvNeXtStack(config, dim, config.semantic_blocks if behind is None else behind)
        self.proj_out = nn.Linear(dim, config.dim) if projects else nn.Identity()

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
        return self.encoder(self.proj_in(latent), mask, state)

    def _behind(self, x: Tensor, mask: Tensor | None, state: StreamState | None) -> Tensor:
        x = self.decoder(x, mask, state)
        # what the acoustic quantizers see is the difference of two large numbers: not in 16 bits
        with torch.autocast(x.device.type, enabled=False):
            return self.proj_out(at_least_float32(x))


@dataclass
class HybridLatents:
    """The latents of both streams; the decoder gets their sum."""

    semantic: Tensor  # (batch, frames, dim), of the first quantizer
    acoustic: Tensor  # (batch, frames, dim), of the others; zero where there are none

    @property
    def sum(self) -> Tensor:
        """(batch, frames, dim): what the decoder gets."""
        return self.semantic + self.acoustic


@dataclass
class HybridQuantizerOutput:
    """What the quantizer gives in training."""

    latents: HybridLatents  # quantized, with the gradient to the encoder
    codes: Tensor  # (batch, quantizers, frames) int64
    loss: Tensor  # scalar, summed over the quantizers
    commitment: Tensor  # scalar, of the semantic quantizer


class HybridQuantizer(nn.Module):
    """Semantic stream, and a residual quantizer over the latent less the decoded semantic stream.

    The residual quantizer stands between ConvNeXt blocks of its own, in codecs that have `acoustic_blocks`.
    """

    acoustic: ResidualVQ | FoldedResidualVQ

    def __init__(self, config: HybridQuantizerConfig, *, exported: bool):
        super().__init__()
        self.config = config
        self.semantic = SemanticStream(config, exported=exported)
        self.acoustic_encoder = ConvNeXtStack(config, config.dim, config.acoustic_blocks)
        self.acoustic = FoldedResidualVQ(config) if exported else ResidualVQ(config)
        self.acoustic_decoder = ConvNeXtStack(config, config.dim, config.acoustic_blocks)

    def draw_counts(self, draws: Tensor) -> Tensor:
        """(rows, 3) numbers from [0, 1) -> (rows,) int64: acoustic quantizers that rows of a training batch get."""
        config, most = self.config, self.config.acoustic_quantizers
        how_many, dropped, bypassed = draws.unbind(1)
        counts = 1 + (how_many * most).long()
        counts = torch.where(dropped < config.quantizer_dropout, counts, most)
        return counts.masked_fill(bypassed < config.acoustic_bypass, 0)

    def forward(
        self,
        latent: Tensor,
        mask: Tensor,
        total: Tensor | float | None = None,
        counts: Tensor | None = None,
    ) -> HybridQuantizerOutput:
        """(batch, frames, dim), mask (batch, frames) -> quantized latents, codes, VQ loss.

        counts: (batch,) acoustic quantizers of each row; all unless given.
        """
        if not isinstance(self.acoustic, ResidualVQ):
            raise RuntimeError(
                "an exported codec cannot train its quantizer: its projections have been folded"
            )
        semantic = self.semantic(latent, mask, total)
        if counts is None:
            counts = torch.full((len(latent),), self.config.acoustic_quantizers, device=latent.device)
        left = self.acoustic_input(latent, semantic.latent, mask)
        acoustic = self.acoustic(left, mask, counts, total)
        decoded = self.acoustic_decoder(acoustic.latent, mask)
        return HybridQuantizerOutput(
            # a row without acoustic codes has no acoustic stream
            latents=HybridLatents(semantic.latent, decoded * (counts > 0)[:, None, None]),
            codes=torch.cat([semantic.codes[:, None], acoustic.codes], dim=1),
            loss=semantic.loss + acoustic.loss,
            commitment=semantic.commitment,
        )

    @torch.no_grad()
    def encode(
        self,
        latent: Tensor,
        count: int,
        mask: Tensor | None = None,
        state: StreamState | None = None,
    ) -> Tensor:
        """(batch, frames, dim) -> codes of the first `count` quantizers (batch, count, frames) int64."""
        codes = self.semantic.encode(latent, mask, state)
        if count == 1:
            return codes[:, None]
        left = self.acoustic_input(latent, self.semantic.decode(codes, mask, state), mask, state)
        with torch.autocast(latent.device.type, enabled=False):
            return torch.cat([codes[:, None], self.acoustic.encode(left, count - 1)], dim=1)

    def acoustic_input(
        self,
        latent: Tensor,
        semantic: Tensor,
        mask: Tensor | None = None,
        state: StreamState | None = None,
    ) -> Tensor:
        """Latent and decoded semantic stream -> what the residual quantizer codes; (batch, frames, dim) all."""
        with torch.autocast(latent.device.type, enabled=False):
            left = at_least_float32(latent) - semantic
        return self.acoustic_encoder(left, mask, state)

    def decode(
        self, codes: Tensor, mask: Tensor | None = None, state: StreamState | None = None
    ) -> HybridLatents:
        """(batch, count, frames) of the first quantizers, at least one -> the latents of both streams."""
        semantic = self.semantic.decode(codes[:, 0], mask, state)
        if codes.shape[1] == 1:
            return HybridLatents(semantic, torch.zeros_like(semantic))
        return HybridLatents(semantic, self.decode_acoustic(codes[:, 1:], mask, state))

    def decode_acoustic(
        self, codes: Tensor, mask: Tensor | None = None, state: StreamState | None = None
    ) -> Tensor:
        """(batch, count, frames) of the first acoustic quantizers, at least one -> latent (batch, frames, dim)."""
        with torch.autocast(codes.device.type, enabled=False):
            quantized = self.acoustic.decode(codes)
        return self.acoustic_decoder(quantized, mask, state)

    def decode_some(self, codes: Tensor, counts: Tensor, mask: Tensor | None = None) -> HybridLatents:
        """(batch, quantizers, frames), of whose acoustic codes each row gets the first `counts` (batch,) -> latents."""
        latents = self.decode(codes[:, :1], mask)
        for row, count in enumerate(counts.tolist()):
            if count:
                own = None if mask is None else mask[row : row + 1]
                latents.acoustic[row] = self.decode_acoustic(codes[row : row + 1, 1 : count + 1], own)[0]
        return latents

    def effective_codebook(self, index: int) -> Tensor:
        """(codebook_size, dim): the vectors that the codes of quantizer `index` stand for.

        Those of the semantic one enter the ConvNeXt blocks behind it, and are `semantic_dim` wide.
        """
        if index == 0:
            return self.semantic.quantizer.effective_codebook()
        return self.acoustic.effective_codebook(index - 1)

    def folded(self) -> dict[str, Tensor]:
        """The tensors that only an exported quantizer has."""
        if not isinstance(self.acoustic, ResidualVQ):
            return {}
        semantic = {f"semantic.quantizer.{k}": v for k, v in self.semantic.quantizer.folded().items()}
        return semantic | {f"acoustic.{k}": v for k, v in self.acoustic.folded().items()}

    @torch.no_grad()
    def calibrate(self, latent: Tensor) -> None:
        """Start every codebook from the latents (frames, dim) of one batch.

        Random entries would be far from most directions that come, and never be learned.
        """
        if not isinstance(self.acoustic, ResidualVQ):
            return
        rows = latent[None]
        mask = torch.ones(rows.shape[:2], dtype=torch.bool, device=latent.device)
        before = self.semantic._before(rows, mask, None)
        self.semantic.quantizer.start_from(before[0])
        semantic = self.semantic.decode(self.semantic.encode(rows, mask), mask)
        residual = self.acoustic_input(rows, semantic, mask)[0]
        for quantizer in self.acoustic.quantizers:
            quantizer.start_from(residual)
            residual = residual - quantizer.decode(quantizer.encode(residual[None]))[0]
