"""Names and shapes of the tensors in published checkpoints, as data, and files made from them."""

import re
from pathlib import Path

import torch
from torch import Tensor

DIRECTORY = Path(__file__).parent
NARROWER = 8  # how much narrower the made files are: every width of 16 or more, but not the mel's 100 bands


def published_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Of "hh_codec", "bigvgan_v2" or "vocos_mel_24khz"."""
    lines = (DIRECTORY / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    found = (re.fullmatch(r"(\S+) \[(.*)\]", line) for line in lines if not line.startswith("#"))
    return {match[1]: tuple(map(int, match[2].split(", "))) for match in found if match}


def parameters(shapes: dict[str, tuple[int, ...]]) -> int:
    """How many trainable numbers there are; the filters are constants."""
    return sum(torch.Size(shape).numel() for name, shape in shapes.items() if not name.endswith("filter"))


def random_state(
    shapes: dict[str, tuple[int, ...]], seed: int = 0, narrower: int = NARROWER
) -> dict[str, Tensor]:
    """Random tensors of published names and narrower shapes, of sizes that let a signal through."""
    generator = torch.Generator().manual_seed(seed)

    def width(size: int) -> int:
        return size // narrower if size >= 16 and size % narrower == 0 else size

    state = {}
    for name, shape in shapes.items():
        kernel = shape[2:] if len(shape) == 3 else ()
        size = (*map(width, shape[: len(shape) - len(kernel)]), *kernel)
        values = torch.randn(size, generator=generator)
        if name.endswith("weight_g"):
            # deep residual stacks of periodic activations turn chaotic with more, and then no two roundings agree
            values = (0.3 if "resblocks" in name else 0.8) + 0.1 * values.abs()
        elif name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "pos_net.5.weight")):
            values = 1 + 0.1 * values
        elif len(size) > 1 and not name.endswith("weight_v"):
            values = values * (torch.Size(size[1:]).numel()) ** -0.5
        else:
            values = values * 0.1
        state[name] = values
    return state
