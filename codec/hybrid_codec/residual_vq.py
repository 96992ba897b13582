"""Residual quantization of the acoustic stream: each quantizer codes what the ones before it leave.

Trained with quantizer dropout (arXiv 2107.03312, section III.C): a row may get the first few quantizers only, so that
any number of them decodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.hybrid_codec.configuration import HybridQuantizerConfig
from codec.hybrid_codec.factorized_vq import FactorizedVQ
from codec.nn.nearest import nearest
from codec.nn.precision import at_least_float32


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
            FactorizedVQ(
                config.dim,
                config.acoustic_codebook_size,
                config.codebook_dim,
                config.commitment,
                exported=False,
                transform_dim=config.codebook_transform_dim,
            )
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
