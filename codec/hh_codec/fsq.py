"""Finite scalar quantization: a few bounded numbers, each rounded to one of few levels (arXiv 2309.15505)."""

import math

import torch
from torch import Tensor, nn

from codec.base import standardize
from codec.hh_codec.configuration import FSQConfig
from codec.hh_codec.slm_vq import QuantizerOutput
from codec.nn.kernels import at_least_float32
from codec.nn.sequences import masked_mean


class FSQ(nn.Module):
    """A linear map to `len(levels)` numbers, tanh, rounding; a code is the number that the rounded levels spell.

    There is no codebook that could collapse. Gradients pass the rounding straight through.
    """

    places: Tensor
    level: Tensor

    def __init__(self, config: FSQConfig):
        super().__init__()
        self.config = config
        self.down = nn.Linear(config.dim, len(config.levels))
        self.up = nn.Linear(len(config.levels), config.dim)
        # constants of the definition, not weights
        self.register_buffer("places", torch.empty(len(config.levels), dtype=torch.long), persistent=False)
        self.register_buffer("level", torch.empty(len(config.levels), dtype=torch.long), persistent=False)
        if not self.level.is_meta:
            self.reset_buffers()

    def reset_buffers(self) -> None:
        """Fill in the constants; `from_pretrained` builds modules without data and calls this again."""
        levels = self.config.levels
        self.places.copy_(torch.tensor([math.prod(levels[:place]) for place in range(len(levels))]))
        self.level.copy_(torch.tensor(levels))

    def _grid(self, latent: Tensor) -> Tensor:
        """(batch, frames, dim) -> (batch, frames, numbers) from 0 to levels - 1, not yet rounded."""
        return (torch.tanh(self.down(latent)) + 1) / 2 * (self.level - 1)

    def _embed(self, grid: Tensor) -> Tensor:
        """(batch, frames, numbers) from 0 to levels - 1 -> (batch, frames, dim)."""
        return self.up(grid * 2 / (self.level - 1) - 1)

    def encode(self, latent: Tensor) -> Tensor:
        """(batch, frames, dim) -> (batch, frames) int64 codes."""
        with torch.autocast(latent.device.type, enabled=False), torch.no_grad():
            return (self._grid(at_least_float32(latent)).round().long() * self.places).sum(dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """(batch, frames) int64 -> (batch, frames, dim)."""
        with torch.autocast(codes.device.type, enabled=False):
            return self._embed((codes[..., None] // self.places % self.level).to(self.up.weight.dtype))

    def effective_codebook(self, layer: int = 0) -> Tensor:
        """(codebook_size, dim): the vectors that the codes stand for."""
        return self.decode(torch.arange(math.prod(self.config.levels), device=self.level.device)[None])[0]

    def forward(
        self, latent: Tensor, mask: Tensor | None = None, total: Tensor | float | None = None
    ) -> QuantizerOutput:
        """(batch, frames, dim), (batch, frames) -> quantized latent and codes; there is no loss (0)."""
        with torch.autocast(latent.device.type, enabled=False):
            grid = self._grid(at_least_float32(latent))
            rounded = grid.round()
            quantized = self._embed(grid + (rounded - grid).detach())
            codes = (rounded.long() * self.places).sum(dim=-1)
            distance = masked_mean((rounded - grid).square().mean(dim=-1), mask, total).detach()
        return QuantizerOutput(quantized, codes, latent.new_zeros(()), distance)

    @torch.no_grad()
    def calibrate(self, latent: Tensor) -> None:
        """Start from the latents (frames, dim) of a batch: the numbers before tanh get mean 0 and deviation 0.8."""
        standardize(self.down, self.down(at_least_float32(latent)), 0.8)
