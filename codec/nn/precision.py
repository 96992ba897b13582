"""Where 16 bits are not enough."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32; in float64 if it is that already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@contextmanager
def at_weights_precision(layer: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """`x` in the precision that the layer's weights are stored in, and autocast off.

    For the last layers before a mel or a waveform: an 8-bit mantissa there is noise that nothing behind can mend.
    """
    with torch.autocast(x.device.type, enabled=False):
        yield x.to(next(layer.parameters(), x).dtype)


def is_plain_inference(x: Tensor, *weights: Tensor) -> bool:
    """Whether `x` meets weights of its own precision on the CPU without autocast, and nothing needs a gradient.

    Then what autograd or 16 bits would spoil may be used: writing in place, fast algorithms for convolutions.
    """
    if x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    needs_gradient = torch.is_grad_enabled() and any(y.requires_grad for y in (x, *weights))
    return not needs_gradient and all(y.dtype == x.dtype for y in weights)
