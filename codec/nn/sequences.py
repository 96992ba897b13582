"""Streaming as a property of the modules: one explicit state, one function that every windowed module shares.

A module that looks across frames is a sliding window: it needs `left` frames before the first one and `right` after
the last, and steps by `stride`. At once, both ends are zeros. In a stream, what the next window still needs is kept in
a `StreamState`, so that any split of the input gives the same output.
"""

from typing import Any

import torch
from torch import Tensor, nn


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

    def select(self, rows: Tensor) -> "StreamState":
        """What these rows of the batch (int64 indices) remember, as a state of their own."""
        chosen = StreamState()
        chosen.memory = {key: _rows(value, rows) for key, value in self.memory.items()}
        return chosen


def _rows(value: Any, rows: Tensor) -> Any:
    if isinstance(value, tuple):
        return tuple(_rows(entry, rows) for entry in value)
    if isinstance(value, Tensor) and value.shape[0] > 1:  # what has one row is the same for all of them
        return value.index_select(0, rows.to(value.device))
    return value


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
