"""Where 16 bits are not enough."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32; in float64 if it is that already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 matrices natively; elsewhere float32 is faster."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # AVX-512 BF16 or AMX
    cpu = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type == "cpu" and bool(cpu)
