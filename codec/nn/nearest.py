"""The nearest entry of a codebook."""

import torch
from torch import Tensor

DISTANCES_AT_ONCE = 2**25  # bounds the memory of the distance matrix for long batches
ROWS_AT_ONCE = 4_096  # of it, at most


@torch.no_grad()
def nearest(x: Tensor, codebook: Tensor) -> Tensor:
    """Index of the codebook row nearest to each vector: (..., dim), (codes, dim) -> (...) int64.

    |x - c|^2 = |x|^2 - 2 x.c + |c|^2, and |x|^2 is the same for all codes.
    """
    flat = x.reshape(-1, x.shape[-1])
    half_norms = 0.5 * codebook.square().sum(dim=-1)
    rows = max(1, min(ROWS_AT_ONCE, DISTANCES_AT_ONCE // len(codebook)))
    found = [(part @ codebook.T - half_norms).argmax(dim=-1) for part in flat.split(rows)]
    return torch.cat(found).reshape(x.shape[:-1]) if found else flat.new_zeros(x.shape[:-1], dtype=torch.long)
