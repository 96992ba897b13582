"""Published files of weights: read without unpickling, loaded name by name; every tensor must be known."""

import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codec.foundation import UserError
from codec.foundation.errors import first_line
from codec.nn.blocks import fit_weight_norm, fold_weight_norm

_NAMED = 3  # names in an error message; the rest is counted


def read_weights(path: Path) -> dict[str, Any]:
    """The dictionary in a `.pt`, `.ckpt` or `.bin` file, tensors on the CPU.

    Read with `weights_only=True`: nothing in the file is run. Raises UserError when it cannot be read that way.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there") from error
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        if found := re.search(r"Unsupported global: GLOBAL ([\w.]+)", str(error)):
            raise UserError(
                f"{path} holds more than weights ({found[1]}), which is never loaded: where you trust the file, "
                "save its state_dict and epoch alone"
            ) from error
        raise UserError(f"{path} is not a file of weights: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}: expected a dictionary of tensors")
    return content


def tensors_of(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors among a dictionary's values."""
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def load_renamed(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    published_name: Callable[[str], str],
    not_needed: re.Pattern[str],
    path: Path,
) -> None:
    """Load `weights` of the file `path` into a module, under the names that `published_name` gives the module's own.

    Weight norm may be on or folded, on both sides; a 1x1 convolution may be a matrix. Every tensor must be used, or
    its name be matched by `not_needed`. Raises UserError with the first names that are missing, unexpected, or of
    another shape.
    """
    theirs = fold_weight_norm(weights)
    found: dict[str, Tensor] = {}
    missing, misshapen = [], []
    for name, own in fold_weight_norm(module.state_dict()).items():
        foreign = published_name(name)
        if (value := theirs.pop(foreign, None)) is None:
            missing.append(foreign)
            continue
        if value.ndim == own.ndim + 1 and value.shape[-1] == 1:
            value = value.squeeze(-1)
        if value.shape != own.shape:
            misshapen.append(f"{foreign} {list(value.shape)} for {list(own.shape)}")
        found[name] = value.float()
    unexpected = [name for name in theirs if not not_needed.search(name)]
    problems = [
        f"{what} {', '.join(names[:_NAMED])}{f' and {len(names) - _NAMED} more' if len(names) > _NAMED else ''}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("another shape", misshapen))
        if names
    ]
    if problems:
        raise UserError(f"{path} is not what was expected: {'; '.join(problems)}")
    module.load_state_dict(fit_weight_norm(found, module))


def prefix_of(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def shape_of(weights: Mapping[str, Tensor], name: str, path: Path) -> tuple[int, ...]:
    """Shape of a tensor; for `x.weight` also of its direction under weight norm. UserError where there is none."""
    for candidate in (name, f"{name}_v"):
        if candidate in weights:
            return tuple(weights[candidate].shape)
    raise UserError(f"{path} is not what was expected: missing {name}")


def count(weights: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the highest number that stands where the pattern's group is, in any name; 0 for none."""
    found = (re.match(pattern, name) for name in weights)
    return max((int(match[1]) + 1 for match in found if match), default=0)
