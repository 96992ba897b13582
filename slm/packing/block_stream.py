"""The order of training blocks: one endless global sequence, of which every process takes its share.

Which block is number n does not depend on how many processes there are, so neither does what a step trains on.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from codec.foundation import UserError
from slm.packing.blocks import Block, PackedBlocks


@dataclass(frozen=True)
class StreamPosition:
    """Where the next step begins."""

    epoch: int = 0
    block: int = 0


class BlockStream:
    """Steps of `blocks_per_step` packed blocks, epoch after epoch; a step may reach into the next epoch.

    `blocks_of(epoch)` makes an epoch's packed blocks. Iterating gives this process's part of each step, a list of
    `blocks_per_step / num_processes` blocks; `position` is where the step after the one just given begins. With
    `workers`, that many processes build blocks ahead.
    """

    def __init__(
        self,
        blocks_of: Callable[[int], PackedBlocks],
        blocks_per_step: int,
        position: StreamPosition = StreamPosition(),
        rank: int = 0,
        num_processes: int = 1,
        workers: int = 0,
    ) -> None:
        if blocks_per_step % num_processes:
            raise UserError(
                f"batch.blocks is {blocks_per_step}, which {num_processes} processes cannot share evenly: "
                f"make it a multiple of {num_processes}"
            )
        self.blocks_of, self.blocks_per_step, self.position = blocks_of, blocks_per_step, position
        self.rank, self.num_processes, self.workers = rank, num_processes, workers
        self._start = position
        self._epoch: tuple[int, PackedBlocks] | None = None  # the last one made
        self._lengths: dict[int, int] = {}

    def __iter__(self) -> Iterator[list[Block]]:
        self.position = self._start
        own = self._own_blocks()
        while True:
            step = [next(own) for _ in range(self.blocks_per_step // self.num_processes)]
            self.position = self._after(self.position)
            yield step

    def _own_blocks(self) -> Iterator[Block]:
        """This process's blocks: every num_processes-th of the global sequence since the start."""
        epoch, first, passed = self._start.epoch, self._start.block, 0
        while True:
            blocks = self._blocks(epoch)
            begin = first + (self.rank - passed) % self.num_processes
            yield from _loader(blocks, range(begin, len(blocks), self.num_processes), self.workers)
            passed += len(blocks) - first
            epoch, first = epoch + 1, 0

    def _after(self, position: StreamPosition) -> StreamPosition:
        epoch, block = position.epoch, position.block + self.blocks_per_step
        while block >= (length := self._length(epoch)):
            epoch, block = epoch + 1, block - length
        return StreamPosition(epoch, block)

    def _length(self, epoch: int) -> int:
        return self._lengths[epoch] if epoch in self._lengths else len(self._blocks(epoch))

    def _blocks(self, epoch: int) -> PackedBlocks:
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, self.blocks_of(epoch)
            self._lengths[epoch] = len(self._epoch[1])
            if not self._lengths[epoch]:
                raise UserError(
                    "the datasets give no training documents: check their train splits and documents"
                )
        return self._epoch[1]


class _Order(Sampler[int]):
    def __init__(self, indices: range) -> None:
        self.indices = indices

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def _loader(blocks: PackedBlocks, order: range, workers: int) -> Iterator[Block]:
    if not workers:
        return (blocks[index] for index in order)
    # Workers are forked with the plan in memory, once an epoch: it is shared, not sent.
    loader: DataLoader[Any] = DataLoader(
        blocks, batch_size=None, sampler=_Order(order), num_workers=workers, prefetch_factor=4
    )
    return iter(loader)


def stack(blocks: list[Block], device: torch.device) -> dict[str, Tensor]:
    """Blocks as one batch of (batch, length) tensors on a device."""
    columns: list[dict[str, Tensor]] = [{**block} for block in blocks]  # type: ignore[dict-item]
    return {
        name: torch.stack([column[name] for column in columns]).to(device, non_blocking=True)
        for name in columns[0]
    }
