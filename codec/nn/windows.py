"""Windows over recordings that are longer than a codec may look at once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


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
