"""Factorised vector quantization: codes are looked up in a few dimensions, by direction (arXiv 2306.06546, 3.2).

A linear map takes the latent to 8 dimensions, where the entry of the nearest direction is its code (both sides
normalised to length 1: "factorized codes" and "L2-normalized codes" of improved VQGAN, arXiv 2110.04627); another
linear map takes the entry back. Gradients pass the lookup straight through.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.masks import masked_mean
from codec.nearest import nearest
from codec.precision import at_least_float32


@dataclass
class FactorizedVQOutput:
    """What a quantizer gives in training."""

    latent: Tensor  # (batch, frames, dim) quantized; carries the gradient to the encoder
    codes: Tensor  # (batch, frames) int64
    loss: Tensor  # scalar: both sides pulled together
    commitment: Tensor  # scalar: mean squared distance of projected latent and entry (watch it for growth)


class FactorizedVQ(nn.Module):
    """One quantizer; exported, it holds the directions of its entries too, which a lookup needs."""

    directions: Tensor

    def __init__(self, dim: int, codebook_size: int, codebook_dim: int, commitment: float, *, exported: bool):
        super().__init__()
        self.exported = exported
        self.commitment = commitment
        self.in_proj = nn.Linear(dim, codebook_dim)
        self.out_proj = nn.Linear(codebook_dim, dim)
        self.codebook = nn.Parameter(torch.randn(codebook_size, codebook_dim))
        if exported:
            self.register_buffer("directions", torch.zeros(codebook_size, codebook_dim))

    def effective_codebook(self) -> Tensor:
        """(codebook_size, dim): the vectors that codes stand for."""
        return self.out_proj(self.codebook)

    def folded(self) -> dict[str, Tensor]:
        """The tensors that only an exported quantizer has."""
        return {"directions": F.normalize(self.codebook, dim=-1)}

    def encode(self, latent: Tensor) -> Tensor:
        """(batch, frames, dim) -> (batch, frames) int64 codes: the entry of the nearest direction."""
        with torch.autocast(latent.device.type, enabled=False), torch.no_grad():
            return self.lookup(self.in_proj(at_least_float32(latent)))

    def decode(self, codes: Tensor) -> Tensor:
        """(batch, frames) int64 -> (batch, frames, dim)."""
        with torch.autocast(codes.device.type, enabled=False):
            return self.out_proj(F.embedding(codes, self.codebook))

    @torch.no_grad()
    def lookup(self, projected: Tensor) -> Tensor:
        """(..., codebook_dim) -> (...) int64."""
        directions = self.directions if self.exported else F.normalize(self.codebook, dim=-1)
        return nearest(F.normalize(projected, dim=-1), directions)

    def forward(
        self, latent: Tensor, mask: Tensor | None = None, total: Tensor | float | None = None
    ) -> FactorizedVQOutput:
        """(batch, frames, dim), (batch, frames) -> quantized latent, codes, VQ loss.

        The loss is summed over the frames of the mask and divided by `total`, their number unless given.
        """
        # 16 bits cannot tell near neighbours apart: the quantizer always works in float32
        with torch.autocast(latent.device.type, enabled=False):
            projected = self.in_proj(at_least_float32(latent))
            codes = self.lookup(projected)
            entries = F.embedding(codes, self.codebook)
            towards_codes = masked_mean((projected - entries.detach()).square().mean(-1), mask, total)
            towards_latent = masked_mean((projected.detach() - entries).square().mean(-1), mask, total)
            passed = projected + (entries - projected).detach()
            return FactorizedVQOutput(
                latent=self.out_proj(passed),
                codes=codes,
                loss=towards_latent + self.commitment * towards_codes,
                commitment=towards_codes.detach(),
            )
