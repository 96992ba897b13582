import time
from collections import Counter

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from codec.foundation import UserError, remove_directory
from slm.packing.best_fit import PackingPlan, pack, plan_blocks

some_lengths = st.lists(st.integers(1, 80), max_size=120)


def blocks_of(plan: PackingPlan, lengths: list[int]) -> list[list[tuple[int, int, int]]]:
    """(document, start, end) of the pieces of each block."""
    blocks = []
    for first, last in zip(plan.block_starts[:-1], plan.block_starts[1:], strict=True):
        pieces = zip(plan.documents[first:last].tolist(), plan.starts[first:last].tolist(), strict=True)
        blocks.append([(d, start, min(lengths[d], start + plan.block_length)) for d, start in pieces])
    return blocks


@given(some_lengths, st.integers(1, 64))
def test_every_token_is_in_one_block_and_no_block_overflows(lengths, block_length):
    plan = pack(np.array(lengths, dtype=np.int64), block_length)
    blocks = blocks_of(plan, lengths)
    tokens = Counter((d, t) for block in blocks for d, start, end in block for t in range(start, end))
    assert tokens == Counter((d, t) for d, length in enumerate(lengths) for t in range(length))
    assert all(0 < sum(end - start for _, start, end in block) <= block_length for block in blocks)
    assert plan.tokens == sum(lengths)
    assert plan.cut_documents == sum(length > block_length for length in lengths)
    # Nothing is cut that fits into a block.
    pieces = Counter(d for block in blocks for d, _, _ in block)
    assert all(pieces[d] == -(-length // block_length) for d, length in enumerate(lengths))


@given(some_lengths, st.integers(1, 64))
def test_it_is_best_fit(lengths, block_length):
    lengths = [min(length, block_length) for length in lengths]
    free: list[int] = []  # of every block
    for length in sorted(lengths, reverse=True):
        fitting = [block for block, space in enumerate(free) if space >= length]
        if not fitting:
            free.append(block_length)
            fitting = [len(free) - 1]
        free[min(fitting, key=lambda block: free[block])] -= length
    plan = pack(np.array(lengths, dtype=np.int64), block_length)
    left = [block_length - sum(end - start for _, start, end in block) for block in blocks_of(plan, lengths)]
    assert sorted(left) == sorted(free)


@pytest.mark.parametrize("block_length", [512, 1024, 2048, 4096])
def test_blocks_of_speech_are_full(block_length):
    random = np.random.default_rng(0)
    frames, characters = random.integers(48, 241, size=50_000), random.integers(40, 101, size=50_000)
    plan = pack(frames + characters + 3, block_length)
    assert plan.fill > 0.98
    assert plan.cut_documents == 0
    assert plan.fill == plan.tokens / (len(plan) * block_length)


def test_a_million_documents_are_packed_in_seconds():
    lengths = np.random.default_rng(0).lognormal(5.3, 0.8, size=1_000_000).clip(5, 6000).astype(np.int32)
    started = time.process_time()
    plan = pack(lengths, 2048)
    assert time.process_time() - started < 3.0  # about 0.25 s
    assert plan.fill > 0.999
    sizes = np.minimum(lengths[plan.documents] - plan.starts, 2048)
    assert np.add.reduceat(sizes, plan.block_starts[:-1]).max() <= 2048
    assert sizes.sum(dtype=np.int64) == lengths.sum(dtype=np.int64) == plan.tokens


def test_the_plan_depends_on_lengths_alone():
    lengths = np.random.default_rng(0).integers(10, 300, size=5000)
    first, second = pack(lengths, 1000), pack(lengths.astype(np.int32), 1000)
    for name in ("documents", "starts", "block_starts"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_no_documents_make_no_blocks():
    plan = pack(np.zeros(0, dtype=np.int64), 100)
    assert len(plan) == 0 and plan.fill == 0.0


def test_a_large_plan_is_made_once_and_mapped(tmp_path, monkeypatch):
    monkeypatch.setenv("CODEC_SLM_CACHE", str(tmp_path))
    monkeypatch.setattr("slm.packing.best_fit._SMALL", 100)
    lengths = np.random.default_rng(0).integers(1, 700, size=1000)  # some are cut
    expected = pack(lengths, 512)
    made = plan_blocks(lengths, 512)
    with monkeypatch.context() as patched:
        patched.setattr("slm.packing.best_fit.pack", None)
        again = plan_blocks(lengths.astype(np.int32), 512)
    for plan in (made, again):
        assert isinstance(plan.documents, np.memmap)
        for name in ("documents", "starts", "block_starts"):
            assert np.array_equal(getattr(plan, name), getattr(expected, name))
        assert (plan.tokens, plan.cut_documents, plan.fill) == (
            expected.tokens,
            expected.cut_documents,
            expected.fill,
        )
    for number in range(1, 12):
        plan_blocks(lengths[number:], 512)
        plan_blocks(lengths, 512 + number)
    assert len([path for path in (tmp_path / "plans").iterdir() if not path.name.startswith(".")]) <= 8
    assert np.array_equal(made.documents, expected.documents)  # though its file is gone


def test_a_plan_that_another_process_makes_or_opens_is_not_removed(tmp_path, monkeypatch):
    """Whoever waits for a lock gets that very lock, and at the end all have the same plan."""
    monkeypatch.setenv("CODEC_SLM_CACHE", str(tmp_path))
    monkeypatch.setattr("slm.packing.best_fit._SMALL", 1)
    monkeypatch.setattr("slm.packing.best_fit._KEPT", 1)
    lengths = np.random.default_rng(0).integers(1, 100, size=50)
    plan_blocks(lengths, 100)
    (first,) = (path for path in (tmp_path / "plans").iterdir() if not path.name.startswith("."))
    with FileLock(tmp_path / "plans" / f".{first.name[:2]}.lock"):  # another process is opening it
        plan_blocks(lengths, 101)
        assert first.is_dir()
    plan_blocks(lengths, 102)
    left = [path.name for path in (tmp_path / "plans").iterdir()]
    assert first.name not in left and f".{first.name[:2]}.lock" in left
    assert sum(not name.startswith(".") for name in left) == 1


def test_a_plan_that_is_removed_while_it_is_opened_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("CODEC_SLM_CACHE", str(tmp_path))
    monkeypatch.setattr("slm.packing.best_fit._SMALL", 1)
    lengths = np.random.default_rng(0).integers(1, 100, size=50)
    made = plan_blocks(lengths, 100)
    load = np.load

    def load_after_removal(file, **options):
        monkeypatch.setattr(np, "load", load)
        remove_directory(file.parent)
        return load(file, **options)

    monkeypatch.setattr(np, "load", load_after_removal)
    again = plan_blocks(lengths, 100)
    assert np.array_equal(again.documents, made.documents)


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CODEC_SLM_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("slm.packing.best_fit._SMALL", 1)
    with pytest.raises(UserError, match="set CODEC_SLM_CACHE"):
        plan_blocks(np.array([3, 4]), 8)
