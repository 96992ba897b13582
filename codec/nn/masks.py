"""Masks over frames: which frames of a padded batch belong to a row."""

import torch
from torch import Tensor


def lengths_from_mask(mask: Tensor) -> Tensor:
    """(batch, frames) bool, True where a row's own frames are (a prefix) -> (batch,) int64 lengths."""
    return mask.long().sum(dim=-1)


def mask_from_lengths(lengths: Tensor, frames: int | None = None) -> Tensor:
    """(batch,) int64 -> (batch, frames) bool, True for the first `lengths[b]`; `frames`: the longest unless given."""
    frames = int(lengths.max()) if frames is None else frames
    return torch.arange(frames, device=lengths.device)[None, :] < lengths[:, None]


def zero_beyond(x: Tensor, mask: Tensor | None) -> Tensor:
    """(batch, frames, dim) with the frames outside (batch, frames) `mask` set to zero; unchanged without a mask."""
    return x if mask is None else x.masked_fill(~mask[..., None], 0.0)


def masked_mean(values: Tensor, mask: Tensor | None, total: Tensor | float | None = None) -> Tensor:
    """Sum of (batch, frames) `values` under the mask, divided by `total` (how many that are, unless given).

    With `total` counted over all processes and accumulation steps, the parts of a batch add up to the whole's loss.
    """
    if mask is None:
        return values.mean() if total is None else values.sum() / total
    return (values * mask).sum() / (mask.sum().clamp_min(1) if total is None else total)
