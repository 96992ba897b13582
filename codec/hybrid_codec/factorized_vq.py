"""Factorised vector quantization: codes are looked up in a few dimensions, by direction (arXiv 2306.06546, 3.2).

A linear map takes the latent to 8 dimensions, where the entry of the nearest direction is its code (both sides
normalised to length 1: "factorized codes" and "L2-normalized codes" of improved VQGAN, arXiv 2110.04627); another
linear map takes the entry back. Gradients pass the lookup straight through.

The entries are parameters, as published, or a frozen random codebook behind a learned MLP (SimVQ, arXiv 2411.02038):
so every entry moves at every step, where parameters that no latent has found in a short run would never be found.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.nn.masks import masked_mean
from codec.nn.nearest import nearest
from codec.nn.precision import at_least_float32


@dataclass
class FactorizedVQOutput:
    """What a quantizer gives in training."""

    latent: Tensor  # (batch, frames, dim) quantized; carries the gradient to the encoder
    codes: Tensor  # (batch, frames) int64
    loss: Tensor  # scalar: both sides pulled together
    commitment: Tensor  # scalar: mean squared distance of projected latent and entry (watch it for growth)


class FactorizedVQ(nn.Module):
    """One quantizer; exported, it holds its entries as they are, and their directions, which a lookup needs.

    transform_dim: hidden width of the MLP behind a frozen codebook; None: the entries themselves are learned.
    """

    codebook: Tensor  # learned or exported
    frozen_codebook: Tensor  # what the MLP makes entries of
    directions: Tensor

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        codebook_dim: int,
        commitment: float,
        *,
        exported: bool,
        transform_dim: int | None = None,
    ):
        super().__init__()
        self.exported = exported
        self.commitment = commitment
        self.in_proj = nn.Linear(dim, codebook_dim)
        self.out_proj = nn.Linear(codebook_dim, dim)
        self.code_transform: nn.Sequential | None = None
        drawn = torch.randn(codebook_size, codebook_dim)
        if exported or transform_dim is None:
            self.codebook = nn.Parameter(drawn)
        else:
            self.register_buffer("frozen_codebook", drawn)
            self.code_transform = nn.Sequential(
                nn.Linear(codebook_dim, transform_dim), nn.ReLU(), nn.Linear(transform_dim, codebook_dim)
            )
        if exported:
            self.register_buffer("directions", torch.zeros(codebook_size, codebook_dim))

    def entries(self) -> Tensor:
        """(codebook_size, codebook_dim): the entries of all codes, with gradients in training."""
        return self.codebook if self.code_transform is None else self.code_transform(self.frozen_codebook)

    def effective_codebook(self) -> Tensor:
        """(codebook_size, dim): the vectors that codes stand for."""
        return self.out_proj(self.entries())

    def folded(self) -> dict[str, Tensor]:
        """The tensors that only an exported quantizer has."""
        entries = self.entries()
        return {"codebook": entries, "directions": F.normalize(entries, dim=-1)}

    @torch.no_grad()
    def start_from(self, latent: Tensor) -> None:
        """Begin where the latents (frames, dim) are: in their principal directions, with entries spread as they are.

        In random directions a quantizer would miss most of what there is to code, and training hardly turns them: of
        hh-codec-tiny's latents, 11 quantizers left 0.55 of the energy in random directions, less than 0.01 in these.
        """
        moments = latent.double().T @ latent.double() / len(latent)
        _, directions = torch.linalg.eigh(moments)  # in the order of their energy, the most last
        self.in_proj.weight.copy_(directions[:, -self.in_proj.out_features :].T)
        self.in_proj.bias.zero_()
        self.out_proj.weight.copy_(self.in_proj.weight.T)
        self.out_proj.bias.zero_()
        projected = self.in_proj(latent)
        if self.code_transform is None:
            drawn = projected[torch.randint(len(projected), (len(self.codebook),), device=latent.device)]
            # slightly moved: fewer frames than codes would make twins
            self.codebook.copy_(drawn + 0.3 * projected.std(dim=0).mean() * torch.randn_like(drawn))
        else:
            last = self.code_transform[-1]
            assert isinstance(last, nn.Linear)
            give_moments_of(projected, self.entries(), last)

    def encode(self, latent: Tensor) -> Tensor:
        """(batch, frames, dim) -> (batch, frames) int64 codes: the entry of the nearest direction."""
        with torch.autocast(latent.device.type, enabled=False), torch.no_grad():
            return self.lookup(self.in_proj(at_least_float32(latent)))

    def decode(self, codes: Tensor) -> Tensor:
        """(batch, frames) int64 -> (batch, frames, dim)."""
        with torch.autocast(codes.device.type, enabled=False):
            return self.out_proj(F.embedding(codes, self.entries()))

    @torch.no_grad()
    def lookup(self, projected: Tensor, entries: Tensor | None = None) -> Tensor:
        """(..., codebook_dim) -> (...) int64, among the entries where they are known already."""
        if self.exported:
            directions = self.directions
        else:
            directions = F.normalize(self.entries() if entries is None else entries, dim=-1)
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
            all_entries = self.entries()
            codes = self.lookup(projected, all_entries)
            entries = F.embedding(codes, all_entries)
            towards_codes = masked_mean((projected - entries.detach()).square().mean(-1), mask, total)
            towards_latent = masked_mean((projected.detach() - entries).square().mean(-1), mask, total)
            passed = projected + (entries - projected).detach()
            return FactorizedVQOutput(
                latent=self.out_proj(passed),
                codes=codes,
                loss=towards_latent + self.commitment * towards_codes,
                commitment=towards_codes.detach(),
            )


@torch.no_grad()
def give_moments_of(wanted: Tensor, rows: Tensor, last: nn.Linear) -> None:
    """Change the layer that made `rows` so that they get mean and covariance of `wanted`, (any number, dim) both."""
    floor = 1e-6 * torch.eye(rows.shape[1], device=rows.device)
    own = torch.linalg.cholesky(torch.cov(rows.T) + floor * rows.var(dim=0).mean())
    other = torch.linalg.cholesky(torch.cov(wanted.T) + floor * wanted.var(dim=0).mean())
    change = torch.linalg.solve_triangular(own, other, upper=False, left=False)  # other own^-1
    last.weight.copy_(change @ last.weight)
    last.bias.copy_(change @ (last.bias - rows.mean(dim=0)) + wanted.mean(dim=0))
