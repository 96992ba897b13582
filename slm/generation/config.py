"""Drawing the next token: temperature, top-k, nucleus, and repetition-aware resampling.

Everything is a pure function of logits and of uniform numbers that come in from outside, so that a candidate's
draws do not depend on how many candidates are drawn beside it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from codec.foundation import UserError


@dataclass(frozen=True)
class SamplingConfig:
    """How tokens are drawn."""

    temperature: float = 0.75
    """0: always the likeliest token."""
    top_k: int = 0
    """Draw from this many likeliest tokens; 0: all."""
    top_p: float = 0.9
    """Draw from the likeliest tokens that together have this probability."""
    repetition_window: int = 10
    """Repetition-aware resampling (VALL-E 2, arXiv 2406.05370, section 4.3) looks at this many last
    tokens."""
    repetition_threshold: float = 0.3
    """A token that makes up at least this share of the window is drawn again from the whole distribution;
    above 1: never."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise UserError(f"sampling.temperature is {self.temperature}: 0 (greedy) or more")
        if self.top_k < 0:
            raise UserError(f"sampling.top_k is {self.top_k}: 0 (all tokens) or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"sampling.top_p is {self.top_p}: a share above 0, at most 1")
        if self.repetition_window < 0 or self.repetition_threshold <= 0:
            raise UserError(
                "sampling.repetition_window counts tokens from 0, sampling.repetition_threshold is above 0"
            )


def warp(logits: Tensor, config: SamplingConfig) -> Tensor:
    """Logits after temperature, top-k and nucleus, what is cut set to -inf; shape (batch, vocabulary) kept.

    At least one token stays. Same order and same meaning as in transformers' `generate`.
    """
    logits = logits / config.temperature
    if 0 < config.top_k < logits.shape[-1]:
        least = torch.topk(logits, config.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if config.top_p < 1:
        ordered, order = torch.sort(logits, descending=False)
        # From the least likely upwards, what together stays within 1 - top_p goes.
        cut = ordered.softmax(-1).cumsum(-1) <= 1 - config.top_p
        cut[:, -1] = False
        logits = logits.masked_fill(torch.zeros_like(cut).scatter(1, order, cut), -torch.inf)
    return logits


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Tokens by inverting the cumulative distribution: (batch, vocabulary), (batch,) in [0, 1) -> (batch,) int64."""
    wide = wide_dtype(logits.device)
    cumulative = logits.to(wide).softmax(-1).cumsum(-1)
    # Scaled by the total, which rounding leaves beside 1; `right` never lands on a token of probability zero.
    target = uniform.to(wide)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp_(max=logits.shape[-1] - 1)


def wide_dtype(device: torch.device) -> torch.dtype:
    """The widest floats that a device has."""
    return torch.float32 if device.type == "mps" else torch.float64


def sample(logits: Tensor, history: Tensor, uniforms: Tensor, config: SamplingConfig) -> Tensor:
    """The next token of each row.

    logits: (batch, vocabulary), -inf where a token may not come. history: (batch, any) int64, the tokens drawn
    before, latest last; negative entries are nothing. uniforms: (batch, 2) in [0, 1). Returns (batch,) int64.
    """
    if config.temperature == 0:
        return logits.argmax(-1)
    tokens = draw(warp(logits, config), uniforms[:, 0])
    if config.repetition_window and config.repetition_threshold <= 1:
        recent = history[:, -config.repetition_window :]
        share = (recent == tokens[:, None]).sum(1) / config.repetition_window
        repeats = share >= config.repetition_threshold
        if bool(repeats.any()):
            tokens = torch.where(repeats, draw(logits, uniforms[:, 1]), tokens)
    return tokens
