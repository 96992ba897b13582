"""Weights with and without weight norm: the same layer, stored in one of four ways."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

# endings of (length, direction): torch's parametrization, and torch's older hook, which published files use
_PAIRS = (
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    ("weight_g", "weight_v"),
)


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with `x.weight` in the place of every pair of length and direction."""
    folded = dict(state)
    for length_ending, direction_ending in _PAIRS:
        for name in [name for name in folded if name.endswith(f".{direction_ending}")]:
            layer = name.removesuffix(direction_ending)
            if f"{layer}{length_ending}" in folded:
                direction, length = folded.pop(name), folded.pop(f"{layer}{length_ending}")
                folded[f"{layer}weight"] = torch._weight_norm(direction, length, 0)
    return folded


def fit_weight_norm(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """A state dict in the form that `module` holds its weights in: with weight norm where the module has it.

    A weight becomes its own direction, and the lengths of its rows.
    """
    fitted = fold_weight_norm(state)
    length_ending, direction_ending = _PAIRS[0]
    for name in module.state_dict():
        if name.endswith(direction_ending):
            layer = name.removesuffix(direction_ending)
            if (weight := fitted.pop(f"{layer}weight", None)) is not None:
                fitted[name] = weight
                fitted[f"{layer}{length_ending}"] = torch.norm_except_dim(weight, 2, 0)
    return fitted
