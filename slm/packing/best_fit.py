"""Documents into blocks of one length: which document goes where, from lengths alone.

Best fit, longest document first (Ding et al., "Fewer Truncations Improve Language Modeling", arXiv 2404.10830):
nothing is cut that fits into a block, and next to nothing is padded. Documents of one length, and blocks with the same
space left, are moved in bulk, so that the time goes with the number of different lengths, not of documents.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PackingPlan:
    """Where every document goes.

    A document that is longer than a block is cut into pieces of a block's length and what is left; each is
    trained on as a document of its own.
    """

    documents: np.ndarray  # (pieces,) int32, which document, block by block
    starts: (
        np.ndarray
    )  # (pieces,) int32, where in the document the piece begins; 0 but for pieces of cut documents
    block_starts: np.ndarray  # (blocks + 1,) int64, the first piece of each block
    block_length: int
    tokens: int  # of all documents
    cut_documents: int

    def __len__(self) -> int:
        return len(self.block_starts) - 1

    @property
    def fill(self) -> float:
        """Share of the blocks' tokens that are no padding."""
        return self.tokens / (len(self) * self.block_length) if len(self) else 0.0


def pack(lengths: np.ndarray, block_length: int) -> PackingPlan:
    """Packs documents into blocks.

    The longest is placed first, each into the fullest block that it fits into; a new block is begun only where none
    is left. What comes out depends on the arguments alone, not on processes.

    Args:
        lengths: (documents,) tokens of each, above 0, below 2**31.
        block_length: tokens a block.
    """
    lengths = np.asarray(lengths)
    documents, starts, sizes = _cut(lengths, block_length)
    order = np.argsort(sizes, kind="stable")
    counts = np.bincount(sizes, minlength=1)
    ends = np.cumsum(counts)
    blocks = _Blocks(block_length, len(sizes))
    for size in np.flatnonzero(counts)[::-1].tolist():
        blocks.place(order[ends[size] - counts[size] : ends[size]], size)
    by_block = np.argsort(blocks.block_of, kind="stable")
    block_sizes = np.bincount(blocks.block_of, minlength=blocks.count)
    return PackingPlan(
        documents=documents[by_block],
        starts=starts[by_block],
        block_starts=np.concatenate([[0], np.cumsum(block_sizes)]),
        block_length=block_length,
        tokens=int(lengths.sum(dtype=np.int64)),
        cut_documents=int((lengths > block_length).sum()),
    )


class _Blocks:
    """Blocks by the space that is left in them."""

    def __init__(self, block_length: int, pieces: int):
        self.block_of = np.empty(pieces, dtype=np.int32)
        self.count = 0
        self._length = block_length
        self._levels: list[int] = []  # spaces that blocks have left, ascending
        self._blocks: dict[
            int, list[np.ndarray]
        ] = {}  # space left -> numbers of blocks, in the order they came

    def place(self, pieces: np.ndarray, size: int) -> None:
        """Places pieces of one size, no larger than what was placed before."""
        done = 0
        while done < len(pieces):
            at = bisect_left(self._levels, size)
            level = self._levels[at] if at < len(self._levels) else self._length
            # Best fit fills a block with pieces of this size before it goes on to the next.
            each = level // size
            wanted = -(-(len(pieces) - done) // each)
            blocks = self._take(level, wanted) if at < len(self._levels) else self._begin(wanted)
            placed = min(len(pieces) - done, len(blocks) * each)
            self.block_of[pieces[done : done + placed]] = np.repeat(blocks, each)[:placed]
            full, rest = divmod(placed, each)
            self._put(level - each * size, blocks[:full])
            if rest:
                self._put(level - rest * size, blocks[full:])
            done += placed

    def _begin(self, count: int) -> np.ndarray:
        self.count += count
        return np.arange(self.count - count, self.count, dtype=np.int32)

    def _take(self, level: int, most: int) -> np.ndarray:
        taken, found, held = [], 0, self._blocks[level]
        while held and found < most:
            blocks = held.pop(0)
            if len(blocks) > most - found:
                held.insert(0, blocks[most - found :])
                blocks = blocks[: most - found]
            taken.append(blocks)
            found += len(blocks)
        if not held:
            del self._blocks[level]
            del self._levels[bisect_left(self._levels, level)]
        return taken[0] if len(taken) == 1 else np.concatenate(taken)

    def _put(self, level: int, blocks: np.ndarray) -> None:
        if not level or not len(blocks):
            return
        if level not in self._blocks:
            self._blocks[level] = []
            insort(self._levels, level)
        self._blocks[level].append(blocks)


def _cut(lengths: np.ndarray, block_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Document, start and size of every piece, int32 each."""
    if not len(lengths) or int(lengths.max()) <= block_length:
        return (
            np.arange(len(lengths), dtype=np.int32),
            np.zeros(len(lengths), dtype=np.int32),
            lengths.astype(np.int32),
        )
    counts = -(-lengths // block_length)
    documents = np.repeat(np.arange(len(lengths), dtype=np.int32), counts)
    part = np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = (part * block_length).astype(np.int32)
    return documents, starts, np.minimum(lengths[documents] - starts, block_length).astype(np.int32)
