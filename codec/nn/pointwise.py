"""Linear layers at the speed of the CPU: oneDNN's matrix products, with GELU in the same pass where it follows.

For float32, PyTorch asks MKL, which reaches nine tenths of what oneDNN reaches on AMD's processors, and needs a pass of
its own for GELU.
"""

import platform

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.nn.precision import is_plain_inference

# Multiplications; oneDNN prepares itself for every new shape, which takes a millisecond and must be worth it
MIN_PRODUCTS = 2**27

# An operator of PyTorch's own compiler, not of its public API: it may be missing
_HAS_ONEDNN = (
    platform.machine().lower() in ("x86_64", "amd64")
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


class Pointwise(nn.Linear):
    """A linear layer over frames."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_dim) -> (..., out_dim)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`F.linear`: (..., in_dim), weight (out_dim, in_dim) -> (..., out_dim)."""
    if _pays(x, weight, bias):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`F.gelu(F.linear(...))`, exact GELU: (..., in_dim), weight (out_dim, in_dim) -> (..., out_dim)."""
    if _pays(x, weight, bias):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], "none")
    return F.gelu(F.linear(x, weight, bias))


def _pays(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    if not _HAS_ONEDNN or x.dtype != torch.float32 or not is_plain_inference(x, weight, bias):
        return False
    return x.numel() * weight.shape[0] >= MIN_PRODUCTS
