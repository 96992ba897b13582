"""Snake, the periodic activation of DAC: x + sin^2(alpha x) / alpha (arXiv 2006.08195)."""

from typing import Any

import torch
from torch import Tensor, nn

EPSILON = 1e-9  # keeps a frequency of zero from dividing by zero, as in the original


class Snake(nn.Module):
    """Snake with a frequency `alpha` a channel."""

    def __init__(self, dim: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        """(batch, frames, dim) -> (batch, frames, dim); `overwrite` lets it write into x where no gradient needs x."""
        if torch.is_grad_enabled() and (x.requires_grad or self.alpha.requires_grad):
            return _SnakeFunction.apply(x, self.alpha)
        sine = torch.mul(x, self.alpha).sin_()
        sine.mul_(sine)
        into = x if overwrite and x.dtype == sine.dtype else sine
        return torch.addcmul(x, sine, (self.alpha + EPSILON).reciprocal(), out=into)


class _SnakeFunction(torch.autograd.Function):
    """Keeps x alone for the gradient: left to autograd, four more tensors of its size stay until the backward pass."""

    @staticmethod
    def forward(context: Any, x: Tensor, alpha: Tensor) -> Tensor:
        context.save_for_backward(x, alpha)
        sine = torch.sin(x * alpha)
        return torch.addcmul(x.to(sine.dtype), sine * sine, (alpha + EPSILON).reciprocal())

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, alpha = context.saved_tensors
        inverse = (alpha + EPSILON).reciprocal()
        phase = x * alpha
        twice = torch.sin(2 * phase)  # d sin^2(y) / dy
        grad_x = grad_alpha = None
        if context.needs_input_grad[0]:
            grad_x = (gradient * (1 + alpha * inverse * twice)).to(x.dtype)
        if context.needs_input_grad[1]:
            sine = torch.sin(phase)
            by_alpha = inverse * (x * twice - inverse * sine * sine)
            grad_alpha = (gradient * by_alpha).sum(dim=tuple(range(x.ndim - 1))).to(alpha.dtype)
        return grad_x, grad_alpha
