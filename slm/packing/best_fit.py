"""Documents into blocks of one length: which document goes where, from lengths alone.

Best fit, longest document first (Ding et al., "Fewer Truncations Improve Language Modeling", arXiv 2404.10830). No
document that fits into a block is cut, and there is hardly any padding. Documents of one length, and blocks with the
same space left, are moved in bulk, so the time depends on the number of different lengths, not of documents.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from slm.array_cache import cache_root, load_or_make, write_arrays

_VERSION = 1  # of the algorithm: another one makes other plans of the same lengths
_SMALL = 200_000  # documents: fewer are packed faster than a plan is written and read
_KEPT = 8  # plans on the disk: that of an epoch is of no use after it


@dataclass(frozen=True)
class PackingPlan:
    """Where every document goes.

    A document longer than a block is cut into pieces of a block's length and a rest. Each piece is trained on as a
    document of its own.
    """

    documents: np.ndarray  # (pieces,) int32, which document, block by block
    starts: (
        np.ndarray
    )  # (pieces,) int32, where in the document the piece begins; 0 unless the document is cut
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

    The longest is placed first, each into the fullest block that it fits into; a new block begins only if none fits.
    The result depends on the arguments alone, not on processes.

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


def plan_blocks(lengths: np.ndarray, block_length: int) -> PackingPlan:
    """As `pack`. For many documents the plan is made once for all processes of a machine, and mapped into memory."""
    if len(lengths) < _SMALL:
        return pack(lengths, block_length)
    key = blake2b(np.asarray(lengths, dtype=np.int32).tobytes(), digest_size=16, person=b"packing plan")
    key.update(f"{_VERSION} {block_length}".encode())
    cached = load_or_make(
        cache_root() / "plans" / key.hexdigest(),
        lambda directory: _write(directory, pack(lengths, block_length)),
        kept=_KEPT,
    )
    arrays, facts = cached.arrays, cached.facts
    return PackingPlan(
        arrays["documents"],
        arrays["starts"],
        arrays["block_starts"],
        facts["block_length"],
        facts["tokens"],
        facts["cut_documents"],
    )


def _write(directory: Path, plan: PackingPlan) -> dict[str, Any]:
    names = ("documents", "starts", "block_starts")
    write_arrays(directory, {name: getattr(plan, name) for name in names})
    return {"block_length": plan.block_length, "tokens": plan.tokens, "cut_documents": plan.cut_documents}
