"""In which precision an operation runs, and faster forms of linear layers, lookups and convolutions on a CPU.

Linear layers: for float32, PyTorch asks MKL, which reaches nine tenths of what oneDNN reaches on AMD's processors, and
needs a pass of its own for GELU.

Convolutions over frames: Toom-Cook (in this use also known as Winograd's) halves the multiplications. Four neighbouring
outputs of a three-tap filter need six multiplications instead of twelve: input and filter are taken as polynomials,
evaluated at six points, multiplied point by point, and interpolated (arXiv 1509.09308, section 4). Longer filters are
sums of three-tap ones, added up before the interpolation. With many channels the products outweigh the transforms. The
points 0, +-sqrt(1/2), +-sqrt(2) and infinity keep float32 rounding within 4 times that of a direct convolution.
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
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

    init_scale = 1.0  # of its first weights

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_dim) -> (..., out_dim)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`F.linear`: (..., in_dim), weight (out_dim, in_dim) -> (..., out_dim)."""
    if _onednn_pays(x, weight, bias):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`F.gelu(F.linear(...))`, exact GELU: (..., in_dim), weight (out_dim, in_dim) -> (..., out_dim)."""
    if _onednn_pays(x, weight, bias):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], "none")
    return F.gelu(F.linear(x, weight, bias))


def _onednn_pays(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    if not _HAS_ONEDNN or x.dtype != torch.float32 or not is_plain_inference(x, weight, bias):
        return False
    return x.numel() * weight.shape[0] >= MIN_PRODUCTS


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


OUTPUTS, TAPS, POINTS = 4, 3, 6  # of one small convolution: POINTS = OUTPUTS + TAPS - 1
VALUES_AT_ONCE = 2**23  # of the transformed input: bounds the memory
MIN_DIM = 192  # with fewer channels the transforms cost more than they save
MIN_FRAMES_PER_DIM = 1.5  # below, transforming the filters costs more than it saves


def toom_cook_pays(frames: int, out_dim: int, in_dim: int, kernel_size: int) -> bool:
    """Whether a convolution over so many frames is faster this way."""
    dim = min(out_dim, in_dim)
    return kernel_size >= TAPS and dim >= MIN_DIM and frames >= MIN_FRAMES_PER_DIM * dim


def toom_cook_convolve(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int = 1) -> Tensor:
    """(frames, in_dim), weight (out_dim, in_dim, odd kernel size) -> (frames, out_dim), zeros beyond both ends.

    On the CPU, without gradients.
    """
    frames, in_dim = x.shape
    out_dim, _, kernel_size = weight.shape
    chunks = (kernel_size + 1) // TAPS  # a last single tap is cheaper by itself, a last pair as three
    matrices = _matrices(chunks, x.dtype)
    reach = TAPS * (chunks - 1) + POINTS  # frames that one tile of outputs depends on
    # with a dilation, every dilation-th frame is a signal of its own: one behind the other, each in whole tiles
    own = -(-frames // dilation)
    length = -(-(own + reach) // OUTPUTS) * OUTPUTS
    signals = x.new_zeros(dilation * length + reach, in_dim)
    padding = dilation * (kernel_size - 1) // 2
    for phase in range(dilation):
        first = (phase - padding) % dilation  # the first frame of this phase, and where it goes
        part = x[first::dilation]
        start = phase * length + (first + padding - phase) // dilation
        signals[start : start + len(part)] = part
    # (out_dim, points, chunks * in_dim) -> (points, chunks * in_dim, out_dim)
    taps = weight[:, :, : TAPS * chunks]
    filters = torch.bmm(matrices.filter[:, : taps.shape[2]].expand(out_dim, -1, -1), taps.transpose(1, 2))
    filters = filters.view(out_dim, POINTS, chunks * in_dim).permute(1, 2, 0)
    single = weight[:, :, -1].T if kernel_size > TAPS * chunks else None
    tiles = dilation * length // OUTPUTS
    out = x.new_empty(tiles, OUTPUTS, out_dim)
    step = max(1, VALUES_AT_ONCE // (POINTS * chunks * in_dim))
    windows = signals.as_strided((tiles, reach, in_dim), (OUTPUTS * in_dim, in_dim, 1))
    for begin in range(0, tiles, step):
        part = out[begin : begin + step]
        count = len(part)
        points = torch.bmm(matrices.input.expand(count, -1, -1), windows[begin : begin + step])
        points = points.view(count, POINTS, chunks * in_dim).transpose(0, 1)
        products = torch.bmm(points, filters).transpose(0, 1)  # (tiles, points, out_dim)
        outputs = matrices.output.expand(count, -1, -1)
        torch.bmm(outputs, products, out=part)
        if single is not None:
            frame = OUTPUTS * begin + kernel_size - 1
            part.view(-1, out_dim).addmm_(signals[frame : frame + OUTPUTS * count], single)
    out = out.view(dilation, length, out_dim)[:, :own].transpose(0, 1).reshape(-1, out_dim)[:frames]
    return out if bias is None else out.add_(bias)


@dataclass(frozen=True)
class _Matrices:
    input: Tensor  # (points * chunks, reach): a tile's frames to values at the points, for each three taps
    filter: Tensor  # (points * chunks, taps * chunks): a filter's taps to values at the points
    output: Tensor  # (outputs, points)


@lru_cache
def _matrices(chunks: int, dtype: torch.dtype) -> _Matrices:
    finite = torch.tensor([0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5)], dtype=torch.float64)
    output = torch.zeros(OUTPUTS, POINTS, dtype=torch.float64)
    output[:, :-1] = finite ** torch.arange(OUTPUTS)[:, None]
    output[-1, -1] = 1
    taps = torch.zeros(POINTS, TAPS, dtype=torch.float64)
    tile = torch.zeros(POINTS, POINTS, dtype=torch.float64)
    for index, point in enumerate(finite):
        others = torch.cat([finite[:index], finite[index + 1 :]])
        taps[index] = point ** torch.arange(TAPS) / (point - others).prod()
        tile[index, :-1] = _polynomial(others)
    taps[-1, -1] = 1
    tile[-1] = _polynomial(finite)
    scale = tile.norm(dim=1, keepdim=True)  # spread evenly between input and filter: smaller rounding
    tile, taps = tile / scale, taps * scale
    inputs = torch.zeros(POINTS, chunks, TAPS * (chunks - 1) + POINTS, dtype=torch.float64)
    filters = torch.zeros(POINTS, chunks, TAPS * chunks, dtype=torch.float64)
    for chunk in range(chunks):
        first = TAPS * chunk
        inputs[:, chunk, first : first + POINTS] = tile
        filters[:, chunk, first : first + TAPS] = taps
    return _Matrices(inputs.flatten(0, 1).to(dtype), filters.flatten(0, 1).to(dtype), output.to(dtype))


def _polynomial(roots: Tensor) -> Tensor:
    """Coefficients of the polynomial with these roots, constant term first."""
    coefficients = torch.ones(1, dtype=roots.dtype)
    for root in roots:
        shifted = torch.cat([coefficients.new_zeros(1), coefficients])
        shifted[:-1] -= root * coefficients
        coefficients = shifted
    return coefficients
