"""Residual quantization by factorised quantizers: each codes what the ones before it leave.

A quantizer looks codes up in a few dimensions, by direction (arXiv 2306.06546, section 3.2): a linear map takes the
latent to 8 dimensions, where the entry of the nearest direction is its code (both sides normalised to length 1:
"factorized codes" and "L2-normalized codes" of improved VQGAN, arXiv 2110.04627); another linear map takes the entry
back. Gradients pass the lookup straight through. The entries are parameters, as published, or a frozen random codebook
behind a learned MLP (SimVQ, arXiv 2411.02038): then every entry moves at every step, also those that no latent has
found in a short run.

Residual quantizers are trained with quantizer dropout (arXiv 2107.03312, section III.C): a row may get the first few of
them only, so that any number of them decodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codec.hybrid_codec.configuration import HybridQuantizerConfig
from codec.nn.blocks import fit_weight_norm
from codec.nn.kernels import at_least_float32, nearest
from codec.nn.sequences import masked_mean


@dataclass
class FactorizedVQOutput:
    """What a quantizer gives in training."""

    latent: Tensor  # (batch, frames, dim) quantized; carries the gradient to the encoder
    codes: Tensor  # (batch, frames) int64
    loss: Tensor  # scalar: both sides pulled together
    commitment: Tensor  # scalar: mean squared distance of projected latent and entry (watch it for growth)


class FactorizedVQ(nn.Module):
    """One quantizer; exported, it holds its entries as they are, and their directions, which a lookup needs."""

    codebook: Tensor  # learned or exported
    frozen_codebook: Tensor  # what the MLP makes entries of
    directions: Tensor

    def __init__(self, config: HybridQuantizerConfig, dim: int, codebook_size: int, *, exported: bool):
        super().__init__()
        self.exported = exported
        self.commitment = config.commitment
        codebook_dim, transform_dim = config.codebook_dim, config.codebook_transform_dim
        self.in_proj = nn.Linear(dim, codebook_dim)
        self.out_proj = nn.Linear(codebook_dim, dim)
        if config.weight_norm and not exported:
            weight_norm(self.in_proj)
            weight_norm(self.out_proj)
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
        return {
            "codebook": entries,
            "directions": F.normalize(entries, dim=-1),
            "in_proj.weight": self.in_proj.weight,
            "out_proj.weight": self.out_proj.weight,
        }

    @torch.no_grad()
    def start_from(self, latent: Tensor) -> None:
        """Begin where the latents (frames, dim) are: in their principal directions, with entries spread as they are.

        In random directions a quantizer would miss most of what there is to code, and training hardly turns them: of
        hh-codec-tiny's latents, 11 quantizers left 0.55 of the energy in random directions, less than 0.01 in these.
        """
        moments = latent.double().T @ latent.double() / len(latent)
        _, directions = torch.linalg.eigh(moments)  # in the order of their energy, the most last
        principal = directions[:, -self.in_proj.out_features :].T.to(latent.dtype)  # (codebook_dim, dim)
        for layer, weight in ((self.in_proj, principal), (self.out_proj, principal.T)):
            tensors = fit_weight_norm({"weight": weight, "bias": torch.zeros_like(layer.bias)}, layer)
            layer.load_state_dict(tensors)
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


@dataclass
class ResidualVQOutput:
    """What the quantizers give in training."""

    latent: Tensor  # (batch, frames, dim), the sum of the quantizers that each row got; carries the gradient
    codes: Tensor  # (batch, quantizers, frames) int64
    loss: Tensor  # scalar, summed over the quantizers


class ResidualVQ(nn.Module):
    """The quantizers in training."""

    quantizers: Sequence[FactorizedVQ]  # a ModuleList, whose type says less

    def __init__(self, config: HybridQuantizerConfig):
        super().__init__()
        self.config = config
        self.quantizers = nn.ModuleList(  # type: ignore[assignment]
            FactorizedVQ(config, config.dim, config.acoustic_codebook_size, exported=False)
            for _ in range(config.acoustic_quantizers)
        )

    def forward(
        self,
        latent: Tensor,
        mask: Tensor,
        counts: Tensor,
        total: Tensor | float | None = None,
    ) -> ResidualVQOutput:
        """(batch, frames, dim), mask (batch, frames), quantizers of each row (batch,) -> their sum, codes, VQ loss.

        Quantizers that a row does not get take no part in its sum and in the loss. The loss is summed over frames and
        divided by `total`, the number of the mask's frames unless given.
        """
        total = mask.sum().clamp_min(1) if total is None else total
        residual = at_least_float32(latent)
        quantized, loss, codes = torch.zeros_like(residual), residual.new_zeros(()), []
        for index, quantizer in enumerate(self.quantizers):
            given = (counts > index)[:, None]  # (batch, 1)
            output = quantizer(residual, mask & given, total)
            quantized = quantized + output.latent * given[..., None]
            residual = residual - output.latent
            loss = loss + output.loss
            codes.append(output.codes)
        return ResidualVQOutput(quantized, torch.stack(codes, dim=1), loss)

    def encode(self, latent: Tensor, count: int) -> Tensor:
        """(batch, frames, dim) -> codes of the first `count` quantizers (batch, count, frames)."""
        residual = at_least_float32(latent)
        codes: list[Tensor] = []
        for index in range(count):
            quantizer = self.quantizers[index]
            codes.append(quantizer.encode(residual))
            residual = residual - quantizer.decode(codes[-1])
        return _stacked(codes, latent)

    def decode(self, codes: Tensor) -> Tensor:
        """(batch, count, frames) of the first quantizers -> their sum (batch, frames, dim)."""
        parts = [self.quantizers[index].decode(codes[:, index]) for index in range(codes.shape[1])]
        return torch.stack(parts).sum(dim=0)

    def effective_codebook(self, index: int) -> Tensor:
        """(codebook_size, dim): the vectors that the codes of one quantizer stand for."""
        return self.quantizers[index].effective_codebook()

    @torch.no_grad()
    def folded(self) -> dict[str, Tensor]:
        """The tensors of `FoldedResidualVQ`."""
        quantizers = list(self.quantizers)
        into = torch.stack([q.in_proj.weight for q in quantizers])  # (quantizers, codebook_dim, dim)
        out = torch.stack([q.out_proj.weight for q in quantizers])  # (quantizers, dim, codebook_dim)
        out_bias = torch.stack([q.out_proj.bias for q in quantizers])  # (quantizers, dim)
        codebooks = torch.stack([q.entries() for q in quantizers])  # (quantizers, codes, codebook_dim)
        before = torch.cumsum(out_bias, dim=0) - out_bias  # the biases of the quantizers before each
        in_bias = torch.stack([q.in_proj.bias for q in quantizers]) - (into @ before[..., None])[..., 0]
        # what an entry of quantizer p takes away from the projection of quantizer q
        carry = torch.einsum("qcd,pde->pqce", into, out)  # (p, q, codebook_dim of q, codebook_dim of p)
        return {
            "in_proj.weight": into.flatten(0, 1),
            "in_proj.bias": in_bias.flatten(),
            "out_weight": out.transpose(0, 1).flatten(1),  # (dim, quantizers * codebook_dim)
            "out_bias": torch.cumsum(out_bias, dim=0),
            "codebooks": codebooks,
            "directions": F.normalize(codebooks, dim=-1),
            "carry": carry.flatten(1, 2),
        }


class FoldedResidualVQ(nn.Module):
    """The quantizers of an exported model: the residual is followed in the few dimensions where codes are looked up.

    Quantizer q looks at in_q(x - sum of out_p(entry_p) over p < q). As all maps are linear, that is in_q(x) less what
    in_q and out_p together make of entry_p: one projection for all quantizers, then `codebook_dim`-wide arithmetic.
    """

    out_weight: Tensor
    out_bias: Tensor
    codebooks: Tensor
    directions: Tensor
    carry: Tensor

    def __init__(self, config: HybridQuantizerConfig):
        super().__init__()
        count, size, narrow = (
            config.acoustic_quantizers,
            config.acoustic_codebook_size,
            config.codebook_dim,
        )
        self.codebook_dim = narrow
        self.in_proj = nn.Linear(config.dim, count * narrow)
        self.register_buffer("out_weight", torch.zeros(config.dim, count * narrow))
        self.register_buffer(
            "out_bias", torch.zeros(count, config.dim)
        )  # entry n: of the first n + 1 together
        self.register_buffer("codebooks", torch.zeros(count, size, narrow))
        self.register_buffer("directions", torch.zeros(count, size, narrow))
        self.register_buffer("carry", torch.zeros(count, count * narrow, narrow))

    @torch.no_grad()
    def encode(self, latent: Tensor, count: int) -> Tensor:
        """(batch, frames, dim) -> codes of the first `count` quantizers (batch, count, frames)."""
        narrow = self.codebook_dim
        projected = F.linear(
            at_least_float32(latent),
            self.in_proj.weight[: count * narrow],
            self.in_proj.bias[: count * narrow],
        )  # (batch, frames, count * codebook_dim)
        codes: list[Tensor] = []
        for index in range(count):
            own = projected[..., :narrow]
            codes.append(nearest(F.normalize(own, dim=-1), self.directions[index]))
            if index + 1 < count:
                entry = F.embedding(codes[-1], self.codebooks[index])
                later = self.carry[index, (index + 1) * narrow : count * narrow]
                projected = projected[..., narrow:] - F.linear(entry, later)
        return _stacked(codes, latent)

    def decode(self, codes: Tensor) -> Tensor:
        """(batch, count, frames) of the first quantizers, at least one -> their sum (batch, frames, dim)."""
        count = codes.shape[1]
        entries = [F.embedding(codes[:, index], self.codebooks[index]) for index in range(count)]
        weight = self.out_weight[:, : count * self.codebook_dim]
        return F.linear(torch.cat(entries, dim=-1), weight, self.out_bias[count - 1])

    def effective_codebook(self, index: int) -> Tensor:
        """(codebook_size, dim): the vectors that the codes of one quantizer stand for."""
        bias = self.out_bias[index] - (self.out_bias[index - 1] if index else 0)
        own = self.out_weight[:, index * self.codebook_dim : (index + 1) * self.codebook_dim]
        return F.linear(self.codebooks[index], own, bias)


def _stacked(codes: list[Tensor], latent: Tensor) -> Tensor:
    """(batch, frames) each -> (batch, quantizers, frames), also of none."""
    if not codes:
        return latent.new_zeros(latent.shape[0], 0, latent.shape[1], dtype=torch.long)
    return torch.stack(codes, dim=1)
