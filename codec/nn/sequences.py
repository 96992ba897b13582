"""Sequences of frames: masks for the rows of a padded batch, state for streams, windows for long recordings.

A module that looks across frames is a sliding window: it needs `left` frames before the first one and `right` after
the last, and steps by `stride`. On a whole sequence, both ends are zeros. In a stream, a `StreamState` keeps what the
next window still needs, so that any split of the input gives the same output.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


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


def masked_mean_over_frames(x: Tensor, mask: Tensor | None) -> Tensor:
    """(batch, frames, dim), mask (batch, frames) -> (batch, dim): the mean over each row's own frames."""
    if mask is None:
        return x.mean(dim=1)
    weight = mask[..., None].to(x.dtype)
    return (x * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1)


class StreamState:
    """What a stream remembers between chunks: one entry a module, keyed by the module and a name.

    Set `final` before the last chunk: windows that look ahead are then closed with zeros, as at the end of a recording.
    """

    def __init__(self) -> None:
        self.memory: dict[tuple[nn.Module, str], Any] = {}
        self.final = False

    def get(self, module: nn.Module, name: str = "past") -> Any:
        """Return what `module` stored under `name`, or None on the first chunk."""
        return self.memory.get((module, name))

    def put(self, module: nn.Module, value: Any, name: str = "past") -> None:
        """Store `value` for the next chunk."""
        self.memory[(module, name)] = value


def windows_input(
    x: Tensor,
    module: nn.Module,
    state: StreamState | None,
    *,
    left: int,
    right: int,
    stride: int = 1,
    dim: int = 1,
) -> Tensor:
    """Return `x` with the context that windows of `left + stride + right` entries, `stride` apart, need along `dim`.

    Without a state: `left` zeros before, `right` zeros behind. With one: what earlier chunks left over, then `x` (and
    the zeros behind, if the state is final); what no complete window has consumed is remembered. The result may be
    shorter than one window: then this chunk yields nothing yet.
    """
    window = left + stride + right

    def zeros(count: int) -> Tensor:
        shape = list(x.shape)
        shape[dim] = count
        return x.new_zeros(shape)

    if state is None:
        return torch.cat([zeros(left), x, zeros(right)], dim=dim) if left or right else x
    past = state.get(module)
    parts = [zeros(left) if past is None else past, x]
    if state.final and right:
        parts.append(zeros(right))
    x = torch.cat(parts, dim=dim)
    complete = max(0, (x.shape[dim] - window) // stride + 1)
    # a copy: a view would keep all of x until the next chunk
    state.put(module, x.narrow(dim, complete * stride, x.shape[dim] - complete * stride).clone())
    return x


@dataclass(frozen=True)
class Window:
    """A window of `frames` frames, of which `overlap` at each inner side are context."""

    frames: int
    overlap: int

    def __post_init__(self) -> None:
        if self.overlap < 0 or self.frames <= 2 * self.overlap:
            raise ValueError(
                f"a window of {self.frames} frames leaves nothing between two overlaps of {self.overlap}"
            )

    @property
    def step(self) -> int:
        """Frames between the starts of two windows."""
        return self.frames - 2 * self.overlap


@dataclass
class Piece:
    """One window's input and the part of its output to keep."""

    samples: Tensor  # (samples,), the last one perhaps not in whole frames
    keep_from: int  # frames of this window
    keep_to: int


def windows_over(blocks: Iterable[Tensor], window: Window, hop_length: int) -> Iterator[Piece]:
    """Cut a recording, given in blocks of any size (samples,), into windows; holds one window and one block at a time.

    Windows start every `window.step` frames whatever the blocks are; the kept parts tile the recording. The last window
    is the first one that reaches the end.
    """
    size, step = window.frames * hop_length, window.step * hop_length
    held = torch.zeros(0)
    first = True
    for block in blocks:
        held = torch.cat([held.to(block), block])
        while held.numel() > size:  # more than a window: this one is not the last
            yield Piece(held[:size], 0 if first else window.overlap, window.frames - window.overlap)
            held = held[step:]
            first = False
    frames = -(-held.numel() // hop_length)
    if frames:
        yield Piece(held, 0 if first else window.overlap, frames)


def join_windows(pieces: Iterable[tuple[Tensor, Piece]], hop_length: int, fade: int) -> Iterator[Tensor]:
    """Join the kept parts of each window's audio (samples,), cross-fading over `fade` samples behind every seam."""
    ramp = None
    tail = None  # what the window before says about the first `fade` samples of this one
    for audio, piece in pieces:
        start, end = piece.keep_from * hop_length, piece.keep_to * hop_length
        kept = audio[start:end].clone()
        if tail is not None:
            ramp = torch.linspace(0, 1, fade + 2, device=audio.device)[1:-1] if ramp is None else ramp
            length = min(tail.numel(), kept.numel())
            kept[:length] = tail[:length] * (1 - ramp[:length]) + kept[:length] * ramp[:length]
        tail = audio[end : end + fade]
        yield kept
