"""Cross-entropy over a large vocabulary without ever holding all logits.

With 150,000 tokens to choose from, the logits of 8,192 places take 4.6 GiB in float32, their gradient as much again:
more than the rest of a small model's training step. Here a chunk of places at a time goes through head, softmax and
both gradients, and only sums are kept. The result is the same up to the order of additions.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_MIB = 2**20


def places_at_once(places: int, vocabulary: int, dtype: torch.dtype, mib: float) -> int:
    """How many places' logits fit in `mib` MiB; at least one, at most all."""
    wide = torch.finfo(_loss_dtype(dtype)).bits // 8
    return max(1, min(places, int(mib * _MIB / (vocabulary * wide))))


def weighted_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    loss_weights: Tensor,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """The weighted sum of cross-entropies at (places, dim) hidden states, and each of them in nats, (places,).

    weight (vocabulary, dim) and bias (vocabulary,) are the head's; targets and loss_weights are (places,). The sum
    has a gradient towards hidden, weight and bias, the single losses have none. `chunk` places are computed at once.
    """
    return _Chunked.apply(hidden, weight, bias, targets, loss_weights, chunk)  # type: ignore[return-value]


class _Chunked(torch.autograd.Function):
    """Gradients are made in the forward pass, where each chunk's probabilities are at hand, so nothing is redone."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        loss_weights: Tensor,
        chunk: int,
    ) -> tuple[Tensor, Tensor]:
        # As autocast would have it: the head multiplies in the decoder's precision.
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        wide = _loss_dtype(dtype)
        needs_hidden, needs_weight = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        needs_bias = bias is not None and ctx.needs_input_grad[2]
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight) if needs_weight else None
        grad_bias = torch.zeros_like(bias) if needs_bias and bias is not None else None
        nats = torch.empty(len(hidden), dtype=wide, device=hidden.device)
        loss = torch.zeros((), dtype=wide, device=hidden.device)
        matrix = weight.to(dtype)
        with torch.autocast(device, enabled=False):
            for start in range(0, len(hidden), chunk):
                places = slice(start, start + chunk)
                inputs, labels = hidden[places].to(dtype), targets[places]
                logits = F.linear(inputs, matrix, None if bias is None else bias.to(dtype)).to(wide)
                nats[places] = F.cross_entropy(logits, labels, reduction="none")
                weights = loss_weights[places].to(wide)
                loss += (nats[places] * weights).sum()
                if not (needs_hidden or needs_weight or needs_bias):
                    continue
                # d loss / d logits = w (softmax - one hot), in the logits' own memory
                gradient = torch.softmax(logits, dim=-1, out=logits)
                gradient[torch.arange(len(labels), device=labels.device), labels] -= 1.0
                gradient *= weights[:, None]
                if grad_bias is not None:
                    grad_bias += gradient.sum(0)
                narrow = gradient.to(dtype)
                if grad_hidden is not None:
                    grad_hidden[places] = narrow @ matrix
                if grad_weight is not None:
                    if grad_weight.dtype == dtype:
                        grad_weight.addmm_(narrow.T, inputs)
                    else:
                        grad_weight += narrow.T @ inputs
        ctx.gradients = grad_hidden, grad_weight, grad_bias
        ctx.mark_non_differentiable(nats)
        return loss, nats

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [None if gradient is None else gradient.mul_(grad_loss) for gradient in ctx.gradients]
        del ctx.gradients
        return (*scaled, None, None, None)


def _loss_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
