"""Shards and batches: every row once, equal seconds, bounded padding."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec import CodecInfo
from codec.foundation import UserError
from data import TokenizeOptions
from data.corpora import Corpus, Utterance, Word
from data.scan import stored_below
from data.tokenization.plan import (
    Plan,
    Variant,
    default_shards,
    length_batches,
    shard_bounds,
    training_variants,
)

CODEC = CodecInfo("c", "f" * 16, 24000, 1000, 24.0, (2048,), 1, None, None)


@given(st.lists(st.floats(0, 60), min_size=1, max_size=200), st.integers(1, 20))
def test_shards_partition_the_rows_and_share_the_seconds(seconds: list[float], shards: int) -> None:
    bounds, sums = shard_bounds([np.array(seconds)], shards)
    assert sums == pytest.approx([sum(seconds[start:stop]) for start, stop in pairwise(bounds)])
    assert bounds[0] == 0 and bounds[-1] == len(seconds) and len(bounds) - 1 <= shards
    assert all(start < stop for start, stop in pairwise(bounds))
    share = sum(seconds) / shards
    for start, stop in pairwise(bounds):
        assert sum(seconds[start:stop]) <= share + max(seconds) + 1e-3 * len(seconds)


def test_shards_grow_with_the_corpus() -> None:
    hours = 3600.0
    assert [default_shards(x * hours) for x in (0, 0.1, 1, 100, 100_000)] == [1, 1, 4, 400, 1024]


@given(
    st.lists(st.integers(0, 5000), min_size=1, max_size=100), st.integers(1, 20000), st.integers(1000, 5000)
)
def test_batches_hold_every_row_once_within_the_bound(lengths: list[int], most: int, long: int) -> None:
    batches = length_batches(np.array(lengths), most, long)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[row] for row in batch)
        assert len(batch) == 1 or (len(batch) * longest <= most and longest <= long)


def test_shards_do_not_depend_on_the_arrays_that_the_rows_come_in() -> None:
    seconds = np.random.default_rng(0).uniform(0, 60, 1000)
    whole = shard_bounds([seconds], 7)
    assert shard_bounds(np.array_split(seconds, 13), 7)[0] == whole[0]
    assert shard_bounds([seconds[:0], seconds, seconds[:0]], 7) == whole
    assert shard_bounds([seconds[:0]], 7) == ([0], [])


def test_variants_are_for_training_alone(tmp_path: Path) -> None:
    utterances = [
        Utterance("a", "a.wav"),
        Utterance("b", "b.wav", split="validation"),
        Utterance("c", "c.wav"),
    ]
    scanned = stored_below(tmp_path, Corpus("n", "l", "folder", utterances))
    scanned.manifest.write_headers(0, [(48000, 48000), (24000, 24000), (100, 24000)])
    options = TokenizeOptions(speeds=(0.95, 1.05), shifts=2)
    plan = Plan(scanned.manifest, list(scanned.splits), CODEC, options)
    slow, fast = -(-24000 * 20 // 19), -(-24000 * 20 // 21)
    expected = {
        "train": [
            ("a", "@speed0.95", slow),
            ("a", "@speed0.95@shift500", slow - 500),
            ("a", "@speed1.05", fast),
            ("a", "@speed1.05@shift500", fast - 500),
            ("c", "@speed0.95", 106),  # nothing is left of it after a shift
            ("c", "@speed1.05", 96),
        ],
        "validation": [("b", "", 24000)],
    }
    assert [shard.split for shard in plan.shards] == ["train", "validation"]
    for shard, seconds in zip(plan.shards, plan.seconds, strict=True):
        found = plan.rows(shard)
        names = [(utterance.id, variant.suffix) for utterance, variant in found.rows]
        assert [(*name, s) for name, s in zip(names, found.samples.tolist(), strict=True)] == expected[
            shard.split
        ]
        assert seconds == found.samples.sum() / 24000 and shard.stop == len(found.rows)


def test_word_times_follow_speed_and_shift() -> None:
    words = [Word("a", 0.0, 0.02), Word("b", 0.5, 1.0)]
    moved = Variant(speed=1.25, skip=480).words(words, 24000)
    assert moved == [Word("a", 0.0, 0.0), Word("b", pytest.approx(0.38), pytest.approx(0.78))]
    assert Variant().words(None, 24000) is None


@pytest.mark.parametrize(("speeds", "shifts"), [((), 1), ((1.0, 1.0), 1), ((0.1,), 1), ((1.0,), 0)])
def test_senseless_variants_are_refused(speeds: tuple[float, ...], shifts: int) -> None:
    with pytest.raises(UserError):
        training_variants(speeds, shifts, 1000)
