import itertools
import multiprocessing

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codec.foundation import UserError
from slm.documents.config import DocumentConfig
from slm.documents.documents import Documents
from slm.packing.blocks import BlockStream, PackedBlocks, StreamPosition, stack
from slm.vocabulary import Vocabulary
from tests.slm.token_rows import codec_info, speech_rows, train_text_model

EVERYTHING = DocumentConfig(
    formats={"speech": 1, "text": 1, "tts": 1, "asr": 1, "aligned": 1, "interleaved": 1},
    prompt_probability=0.2,
)


class Epoch:
    """Blocks that know their own number."""

    def __init__(self, epoch: int, size: int) -> None:
        self.epoch, self.size = epoch, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        return {"input_ids": torch.tensor([self.epoch, index])}


def numbers(stream: BlockStream, steps: int) -> list[list[tuple[int, ...]]]:
    return [
        [tuple(block["input_ids"].tolist()) for block in step]
        for step in itertools.islice(iter(stream), steps)
    ]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 3), st.sampled_from([1, 2, 4]))
def test_the_global_order_does_not_depend_on_processes(sizes, factor, processes):
    per_step = factor * processes

    def epochs(epoch):
        return Epoch(epoch, sizes[epoch % len(sizes)])

    endless = ((epoch, index) for epoch in itertools.count() for index in range(sizes[epoch % len(sizes)]))
    expected = [list(itertools.islice(endless, per_step)) for _ in range(7)]
    ranks = [
        numbers(BlockStream(epochs, per_step, StreamPosition(), r, processes), 7) for r in range(processes)
    ]
    for step, blocks in enumerate(expected):
        together = list(itertools.chain(*(rank[step] for rank in ranks)))
        assert sorted(together) == blocks
        assert all(len(rank[step]) == factor for rank in ranks)


@given(st.lists(st.integers(1, 7), min_size=1, max_size=3), st.integers(1, 5), st.integers(0, 8))
def test_it_goes_on_from_any_position(sizes, per_step, done):
    def epochs(epoch):
        return Epoch(epoch, sizes[epoch % len(sizes)])

    stream = BlockStream(epochs, per_step)
    whole = numbers(stream, done + 4)
    first = BlockStream(epochs, per_step)
    steps = iter(first)
    for _ in range(done):
        next(steps)
    assert numbers(BlockStream(epochs, per_step, first.position), 4) == whole[done:]


def test_workers_give_the_same_blocks():
    def epochs(epoch):
        return Epoch(epoch, 5)

    assert numbers(BlockStream(epochs, 3, workers=2), 4) == numbers(BlockStream(epochs, 3), 4)


def test_a_batch_that_processes_cannot_share_is_refused():
    with pytest.raises(UserError, match=r"batch\.blocks is 3"):
        BlockStream(lambda epoch: Epoch(epoch, 5), 3, num_processes=2)


def test_an_epoch_without_blocks_is_refused():
    with pytest.raises(UserError, match="no training documents"):
        next(iter(BlockStream(lambda epoch: Epoch(epoch, 0), 2)))


def test_blocks_stack_to_a_batch():
    batch = stack([Epoch(0, 3)[1], Epoch(0, 3)[2]], torch.device("cpu"))
    assert batch["input_ids"].tolist() == [[0, 1], [0, 2]]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_build_the_same_documents_however_they_start(method, tmp_path):
    """Spawned workers share no memory: all that a block is made of has to reach them."""
    model = train_text_model(tmp_path, "char")
    vocabulary = Vocabulary.build(model, codec_info(), ["slt"])
    documents = Documents([speech_rows(20)], vocabulary, EVERYTHING, seed=1)

    def epochs(epoch: int) -> PackedBlocks:
        return PackedBlocks(documents, 512, epoch)

    def first_steps(workers: int) -> list[torch.Tensor]:
        steps = itertools.islice(BlockStream(epochs, 2, workers=workers), 2)
        return [block["input_ids"] for step in steps for block in step]

    expected = first_steps(0)
    usual = multiprocessing.get_start_method()
    multiprocessing.set_start_method(method, force=True)
    try:
        found = first_steps(1)
    finally:
        multiprocessing.set_start_method(usual, force=True)
    assert len(found) == 4 and all(map(torch.equal, found, expected))
