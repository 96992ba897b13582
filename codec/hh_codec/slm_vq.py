"""SLM-VQ: a frozen random codebook behind a learnable MLP, one codebook at inference (arXiv 2507.18897, section 3.2).

The codebook is drawn once from N(0, 1/dim) and never trained; an MLP maps it to the effective codebook, so that every
code moves with every gradient and none dies (SimVQ, arXiv 2411.02038). Gradients pass the nearest-neighbour step by the
rotation trick (arXiv 2410.06424) or straight through. In training only, a second quantizer codes what the first leaves;
it joins the VQ loss, never the decoder. (The paper's figure draws one MLP a quantizer; its code shares one, and so do
we.)
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.hh_codec.configuration import SLMVQConfig
from codec.nn.kernels import at_least_float32, nearest
from codec.nn.sequences import masked_mean


@dataclass
class QuantizerOutput:
    """What a quantizer gives in training."""

    latent: Tensor  # (batch, frames, dim), by the first quantizer; carries the gradient to the encoder
    codes: Tensor  # (batch, frames) int64 of the first quantizer
    loss: Tensor  # scalar, summed over the quantizers
    commitment: Tensor  # scalar: mean squared distance of latent and code, first quantizer


class SLMVQ(nn.Module):
    """The quantizer; exported, it holds the effective codebook and nothing else."""

    codebook: Tensor
    code_transform: nn.Sequential

    def __init__(self, config: SLMVQConfig, *, exported: bool):
        super().__init__()
        self.config = config
        self.exported = exported
        size, dim = config.codebook_size, config.dim
        if exported:
            self.register_buffer("codebook", torch.zeros(size, dim))
            return
        for layer in range(config.training_quantizers):
            drawn = torch.randn(size, dim) * dim**-0.5
            if config.frozen:
                self.register_buffer(f"frozen_codebook_{layer}", drawn)
            else:
                self.register_parameter(f"trained_codebook_{layer}", nn.Parameter(drawn))
        self.code_transform = nn.Sequential(
            nn.Linear(dim, config.hidden_dim), nn.ReLU(), nn.Linear(config.hidden_dim, dim)
        )

    def effective_codebook(self, layer: int = 0) -> Tensor:
        """(codebook_size, dim): what a code means. A constant once exported; differentiable in training."""
        if self.exported:
            return self.codebook
        if self.config.frozen:
            return self.code_transform(self.get_buffer(f"frozen_codebook_{layer}"))
        return self.code_transform(self.get_parameter(f"trained_codebook_{layer}"))

    @torch.no_grad()
    def calibrate(self, latent: Tensor) -> None:
        """Spread the effective codebook as random codes of these latents (frames, dim) should be spread.

        Reverse water-filling (Cover and Thomas, Elements of Information Theory, section 10.3.3): along a principal
        direction of variance v the codes have max(v - level, 0), where `level` makes their rate, the sum of
        log2(v / level) / 2 over those directions, that of the codebook. Codes spread as the latents are would be
        farther from them than their mean is: few would be near anything, and training would soon use no others.
        """
        latent, rows = latent.double(), self.effective_codebook().double()
        variances, directions = torch.linalg.eigh(torch.cov(latent.T))  # ascending
        variances = variances.flip(0).clamp_min(1e-9 * variances[-1])
        count = torch.arange(1, len(variances) + 1, device=latent.device)
        levels = 2 ** ((variances.log2().cumsum(0) - 2 * math.log2(len(rows))) / count)
        level = levels[(variances > levels).sum() - 1]
        deviations = (variances - level).clamp_min(0).sqrt()
        floor = 1e-6 * rows.var(dim=0).mean() * torch.eye(len(count), device=latent.device)
        own = torch.linalg.cholesky(torch.cov(rows.T) + floor)
        change = torch.linalg.solve_triangular(own, directions.flip(1) * deviations, upper=False, left=False)
        layer = self.code_transform[-1]
        assert isinstance(layer, nn.Linear)
        layer.weight.copy_(change @ layer.weight.double())
        layer.bias.copy_(change @ (layer.bias.double() - rows.mean(dim=0)) + latent.mean(dim=0))

    def encode(self, latent: Tensor) -> Tensor:
        """(batch, frames, dim) -> (batch, frames) int64 codes, nearest in L2."""
        with torch.autocast(latent.device.type, enabled=False), torch.no_grad():
            return nearest(at_least_float32(latent), self.effective_codebook())

    def decode(self, codes: Tensor) -> Tensor:
        """(batch, frames) int64 -> (batch, frames, dim)."""
        with torch.autocast(codes.device.type, enabled=False):
            return F.embedding(codes, self.effective_codebook())

    def forward(
        self, latent: Tensor, mask: Tensor | None = None, total: Tensor | float | None = None
    ) -> QuantizerOutput:
        """(batch, frames, dim), (batch, frames) -> quantized latent, codes, VQ loss.

        The loss is summed over the frames of the mask and divided by `total`, their number unless given.
        """
        if self.exported:
            raise RuntimeError(
                "an exported codec cannot train its quantizer: its codebook transform has been folded"
            )
        # 16 bits cannot tell near neighbours apart: the quantizer always works in float32
        with torch.autocast(latent.device.type, enabled=False):
            residual = at_least_float32(latent)
            loss = residual.new_zeros(())
            outputs: list[QuantizerOutput] = []
            for layer in range(self.config.training_quantizers):
                codebook = self.effective_codebook(layer)
                codes = nearest(residual, codebook)
                quantized = F.embedding(codes, codebook)
                towards_codes = masked_mean((residual - quantized.detach()).square().mean(-1), mask, total)
                towards_latent = masked_mean((residual.detach() - quantized).square().mean(-1), mask, total)
                loss = loss + towards_latent + self.config.commitment * towards_codes
                if self.config.gradient == "rotation":
                    passed = rotate_to(residual, quantized)
                else:
                    passed = residual + (quantized - residual).detach()
                outputs.append(QuantizerOutput(passed, codes, loss, towards_codes.detach()))
                residual = residual - passed.detach()
        return QuantizerOutput(outputs[0].latent, outputs[0].codes, loss, outputs[0].commitment)


def rotate_to(x: Tensor, target: Tensor) -> Tensor:
    """Value `target`, gradient of the rotation and scaling that carry `x` onto it (arXiv 2410.06424, section 4.2).

    The rotation is a product of two reflections, constant for the gradient.
    """
    norm_x = x.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    norm_target = target.norm(dim=-1, keepdim=True)
    u = (x / norm_x).detach()
    v = (target / norm_target.clamp_min(1e-6)).detach()
    w = F.normalize(u + v, dim=-1).detach()
    rotated = x - 2 * (x * w).sum(-1, keepdim=True) * w + 2 * (x * u).sum(-1, keepdim=True) * v
    return rotated * (norm_target / norm_x).detach()
