"""Documents into blocks of one length: which document goes where, from lengths alone.

Best fit over windows of documents (Ding et al., "Fewer Truncations Improve Language Modeling", arXiv
2404.10830): nothing is cut that fits into a block, and next to nothing is padded.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np

# Blocks that stay open from window to window, the emptiest.
_OPEN_BLOCKS = 64
_NUMBER_BITS = 40
_NUMBER = (1 << _NUMBER_BITS) - 1


@dataclass(frozen=True)
class PackingPlan:
    """Where every document goes.

    A document that is longer than a block is cut into pieces of a block's length and what is left; each is
    trained on as a document of its own.
    """

    documents: np.ndarray  # (pieces,) int64, which document, block by block
    starts: (
        np.ndarray
    )  # (pieces,) int64, where in the document the piece begins; 0 but for pieces of cut documents
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


def pack(lengths: np.ndarray, block_length: int, window: int = 1024) -> PackingPlan:
    """Packs documents into blocks.

    Of every `window` documents the longest is placed first, each into the fullest open block that it fits
    into. What comes out depends on the arguments alone, not on processes.

    Args:
        lengths: (documents,) tokens of each, above 0.
        block_length: tokens a block.
        window: documents that are sorted together.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    documents, starts, sizes = _cut(lengths, block_length)
    block_of = np.empty(len(sizes), dtype=np.int64)
    open_blocks: list[int] = []  # ascending: free tokens in the upper bits, the block's number in the lower
    blocks = 0
    for first in range(0, len(sizes), window):
        in_window = sizes[first : first + window]
        longest_first = np.argsort(-in_window, kind="stable")
        chosen = []
        for size in in_window[longest_first].tolist():
            place = bisect_left(open_blocks, size << _NUMBER_BITS)
            if place < len(open_blocks):
                block = open_blocks.pop(place)
            else:
                block = (block_length << _NUMBER_BITS) | blocks
                blocks += 1
            chosen.append(block & _NUMBER)
            block -= size << _NUMBER_BITS
            if block >> _NUMBER_BITS:
                insort(open_blocks, block)
        block_of[first + longest_first] = chosen
        del open_blocks[:-_OPEN_BLOCKS]
    order = np.argsort(block_of, kind="stable")
    block_starts = np.concatenate([[0], np.cumsum(np.bincount(block_of, minlength=blocks))])
    return PackingPlan(
        documents=documents[order],
        starts=starts[order],
        block_starts=block_starts,
        block_length=block_length,
        tokens=int(lengths.sum()),
        cut_documents=int((lengths > block_length).sum()),
    )


def _cut(lengths: np.ndarray, block_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Document, start and size of every piece."""
    counts = -(-lengths // block_length)
    documents = np.repeat(np.arange(len(lengths)), counts)
    starts = (np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)) * block_length
    return documents, starts, np.minimum(lengths[documents] - starts, block_length)
