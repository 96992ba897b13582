from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm.packing import PackingPlan, pack

some_lengths = st.lists(st.integers(1, 80), max_size=120)


def blocks_of(plan: PackingPlan, lengths: list[int]) -> list[list[tuple[int, int, int]]]:
    """(document, start, end) of the pieces of each block."""
    blocks = []
    for first, last in zip(plan.block_starts[:-1], plan.block_starts[1:], strict=True):
        pieces = zip(plan.documents[first:last].tolist(), plan.starts[first:last].tolist(), strict=True)
        blocks.append([(d, start, min(lengths[d], start + plan.block_length)) for d, start in pieces])
    return blocks


@given(some_lengths, st.integers(1, 64), st.integers(1, 50))
@settings(deadline=None)
def test_every_token_is_in_one_block_and_no_block_overflows(lengths, block_length, window):
    plan = pack(np.array(lengths, dtype=np.int64), block_length, window)
    blocks = blocks_of(plan, lengths)
    tokens = Counter((d, t) for block in blocks for d, start, end in block for t in range(start, end))
    assert tokens == Counter((d, t) for d, length in enumerate(lengths) for t in range(length))
    assert all(0 < sum(end - start for _, start, end in block) <= block_length for block in blocks)
    assert plan.tokens == sum(lengths)
    assert plan.cut_documents == sum(length > block_length for length in lengths)
    # Nothing is cut that fits into a block.
    pieces = Counter(d for block in blocks for d, _, _ in block)
    assert all(pieces[d] == -(-length // block_length) for d, length in enumerate(lengths))


@given(some_lengths, st.integers(1, 64), st.integers(1, 50))
@settings(deadline=None)
def test_it_is_best_fit(lengths, block_length, window):
    lengths = [min(length, block_length) for length in lengths]
    expected: list[list[int]] = []
    free: list[int] = []  # of every block
    open_blocks: list[int] = []
    for first in range(0, len(lengths), window):
        ids = range(first, min(first + window, len(lengths)))
        for document in sorted(ids, key=lambda d: -lengths[d]):
            fitting = [block for block in open_blocks if free[block] >= lengths[document]]
            if not fitting:
                expected.append([])
                free.append(block_length)
                open_blocks.append(len(free) - 1)
                fitting = [open_blocks[-1]]
            block = min(fitting, key=lambda block: (free[block], block))
            expected[block].append(document)
            free[block] -= lengths[document]
        open_blocks = sorted((b for b in open_blocks if free[b]), key=lambda b: (free[b], b))[-64:]
    plan = pack(np.array(lengths, dtype=np.int64), block_length, window)
    assert [[d for d, _, _ in block] for block in blocks_of(plan, lengths)] == [sorted(b) for b in expected]


@pytest.mark.parametrize("block_length", [512, 1024, 2048, 4096])
def test_blocks_of_speech_are_full(block_length):
    random = np.random.default_rng(0)
    frames, characters = random.integers(48, 241, size=50_000), random.integers(40, 101, size=50_000)
    plan = pack(frames + characters + 3, block_length)
    assert plan.fill > 0.98
    assert plan.cut_documents == 0
    assert plan.fill == plan.tokens / (len(plan) * block_length)


def test_the_plan_depends_on_lengths_alone():
    lengths = np.random.default_rng(0).integers(10, 300, size=5000)
    first, second = pack(lengths, 1000), pack(lengths.astype(np.int32), 1000)
    for name in ("documents", "starts", "block_starts"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_no_documents_make_no_blocks():
    plan = pack(np.zeros(0, dtype=np.int64), 100)
    assert len(plan) == 0 and plan.fill == 0.0
