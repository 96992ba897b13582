from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.foundation import UserError
from slm.documents.config import DocumentConfig
from slm.documents.documents import Documents
from slm.documents.mixture import limit_shares, rows_of_epoch, rows_per_epoch
from slm.documents.rows import Source
from slm.packing.blocks import BlockStream, PackedBlocks
from slm.vocabulary import Vocabulary
from tests.slm.token_rows import codec_info, speech_rows, train_text_model

PLAIN = DocumentConfig(formats={"speech": 1.0, "tts": 1.0}, corruption=0.0, voice_tag_probability=0.0)
shares = st.lists(
    st.tuples(st.floats(0.01, 1.0), st.one_of(st.just(1e9), st.floats(0.0, 1.0))), min_size=1, max_size=6
)


@given(shares)
def test_limited_shares_keep_their_proportions(sources):
    total = sum(share for share, _ in sources)
    wanted, limits = [share / total for share, _ in sources], [limit for _, limit in sources]
    if sum(limits) < 1 - 1e-9:
        with pytest.raises(UserError, match=r"max_epochs of the datasets leave only .*%"):
            limit_shares(wanted, limits)
        return
    result = limit_shares(wanted, limits)
    assert sum(result) == pytest.approx(1.0)
    assert all(share <= limit + 1e-9 for share, limit in zip(result, limits, strict=True))
    scales = [r / w for r, w, limit in zip(result, wanted, limits, strict=True) if r < limit - 1e-9]
    assert all(scale == pytest.approx(scales[0]) for scale in scales)
    # Nobody is held back below its share for another's sake.
    assert all(r >= min(w, limit) - 1e-9 for r, w, limit in zip(result, wanted, limits, strict=True))


def test_without_limits_nothing_changes():
    assert rows_per_epoch([10, 30], [100, 300], [None, None]) == [10, 30]
    assert rows_per_epoch([10, 30], [100, 300], [1.0, 3.0], [None, 0.8]) == [10, 30]
    assert rows_per_epoch([10, 30], [100, 300], [None, None], [0.5, None]) == [10, 30]


def test_rows_that_come_less_than_once_an_epoch_come_all_the_same():
    seen = Counter()
    for epoch in range(10):
        order = rows_of_epoch(3, epoch, [4, 7], [0.4, 2.8])
        seen.update(order.rows.tolist())
    assert sum(seen.values()) == 4 + 28 and set(seen.values()) == {1, 4}
    assert all(seen[row] == (1 if row < 4 else 4) for row in range(11))


@pytest.mark.parametrize("weights", [(1.0, 1.0), (None, None)])
def test_no_row_comes_more_often_than_it_may(tmp_path, weights):
    vocabulary = Vocabulary.build(train_text_model(tmp_path, "char"), codec_info())
    small, large = speech_rows(12), speech_rows(150, seed=1)
    budget, length = 200_000, 1024  # some six epochs of all rows

    def comings(limits):
        sources = [
            Source(rows, weight, max_epochs=limit)
            for rows, weight, limit in zip((small, large), weights, limits, strict=True)
        ]
        documents = Documents(sources, vocabulary, PLAIN, seed=0, budget=budget)
        seen, tokens, epoch = Counter(), 0, 0
        while tokens < budget:
            plan = PackedBlocks(documents, length, epoch).plan
            for block in range(len(plan)):
                pieces = slice(int(plan.block_starts[block]), int(plan.block_starts[block + 1]))
                seen.update(documents.plan(epoch).rows[plan.documents[pieces]].tolist())
                tokens += length
                if tokens >= budget:
                    break
            epoch += 1
        return [seen[row] for row in range(len(small) + len(large))]

    free = comings((None, None))
    limited = comings((2.0, None))
    assert max(free[:12]) > 5
    assert max(limited[:12]) <= 3 and np.mean(limited[:12]) == pytest.approx(2.0, rel=0.15)
    assert min(limited[12:]) > 2
    with pytest.raises(UserError, match="max_epochs of the datasets leave only"):
        comings((2.0, 2.0))


def test_the_next_step_is_found_without_a_replay(tmp_path):
    """Going on in a late epoch builds that epoch's plan and no other."""
    vocabulary = Vocabulary.build(train_text_model(tmp_path, "char"), codec_info())
    documents = Documents([speech_rows(40)], vocabulary, PLAIN, seed=0)
    made = []

    def blocks_of(epoch):
        made.append(epoch)
        return PackedBlocks(documents, 512, epoch)

    stream = BlockStream(blocks_of, 2, replace(BlockStream(blocks_of, 2).position, epoch=1000, block=3))
    next(iter(stream))
    assert made == [1000] and (stream.position.epoch, stream.position.block) == (1000, 5)
