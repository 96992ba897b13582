"""Blocks of packed documents, and their order: one endless global sequence, of which every process takes its share.

Which block is number n does not depend on the number of processes, so neither does what a step trains on.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from codec.foundation import UserError, generator
from slm.documents.documents import Documents
from slm.documents.formats import CONTROL
from slm.packing.best_fit import plan_blocks

IGNORED = -100  # a label without a loss, as PyTorch's cross entropy has it


class Block(TypedDict):
    """One row of a batch; all tensors are (block_length,)."""

    input_ids: Tensor  # int64
    labels: Tensor  # int64, the token to predict at that very place (not shifted), or -100
    position_ids: Tensor  # int64, from 0 in every document, and in the padding
    loss_weights: Tensor  # float32, weight of the label; 0 where it is -100
    modality: Tensor  # uint8, of the label: CONTROL, TEXT or SPEECH


class PackedBlocks(Dataset[Block]):
    """The blocks of an epoch, shuffled: a function of (documents, block length, epoch) alone.

    Positions restart with every document, and nothing may attend from one document to another: give the model
    `position_ids` without an attention mask. No document's first token has a label, nor has padding.
    """

    def __init__(self, documents: Documents, block_length: int, epoch: int):
        self.documents = documents
        self.block_length = block_length
        self.epoch = epoch
        self.plan = plan_blocks(documents.lengths(epoch), block_length)
        self._order = generator(documents.seed, "order of blocks", epoch).permutation(len(self.plan))

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> Block:
        plan, length = self.plan, self.block_length
        input_ids = np.full(length, self.documents.vocabulary.pad_id, dtype=np.int64)
        labels = np.full(length, IGNORED, dtype=np.int64)
        position_ids = np.empty(length, dtype=np.int64)
        loss_weights = np.zeros(length, dtype=np.float32)
        modality = np.full(length, CONTROL, dtype=np.uint8)

        block = int(self._order[index])
        end = 0
        for piece in range(int(plan.block_starts[block]), int(plan.block_starts[block + 1])):
            document = self.documents.build(self.epoch, int(plan.documents[piece]))
            first = int(plan.starts[piece])
            part = slice(first, first + length)
            place = slice(end, end + len(document.input_ids[part]))
            input_ids[place] = document.input_ids[part]
            labels[place] = document.targets[part]
            loss_weights[place] = document.loss_weights[part]
            loss_weights[place.start] = 0.0  # also where a piece of a cut document begins
            modality[place] = document.modality[part]
            position_ids[place] = np.arange(place.stop - place.start)
            end = place.stop
        position_ids[end:] = np.arange(length - end)
        labels[loss_weights == 0.0] = IGNORED
        return {
            "input_ids": torch.from_numpy(input_ids),
            "labels": torch.from_numpy(labels),
            "position_ids": torch.from_numpy(position_ids),
            "loss_weights": torch.from_numpy(loss_weights),
            "modality": torch.from_numpy(modality),
        }


@dataclass(frozen=True)
class StreamPosition:
    """Where the next step begins."""

    epoch: int = 0
    block: int = 0


class BlockStream:
    """Steps of `blocks_per_step` packed blocks, epoch after epoch. A step may reach into the next epoch.

    `blocks_of(epoch)` makes an epoch's packed blocks. Iterating gives this process's part of each step, a list of
    `blocks_per_step / num_processes` blocks; `position` is where the next step begins. `workers` processes build blocks
    ahead.
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
            self.position = self.after(self.position)
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

    def epoch_blocks(self) -> PackedBlocks:
        """All blocks of the epoch in which the next step begins."""
        return self._blocks(self.position.epoch)

    def after(self, position: StreamPosition, steps: int = 1) -> StreamPosition:
        """Where the step so many steps after the one at `position` begins."""
        epoch, block = position.epoch, position.block + steps * self.blocks_per_step
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
    # Forked workers share the plan with this process; with other start methods they get a copy, once an epoch.
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
