from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from slm.documents.config import DocumentConfig
from slm.documents.documents import Documents
from slm.packing.blocks import IGNORED, PackedBlocks
from slm.vocabulary import Vocabulary
from tests.slm.token_rows import codec_info, speech_rows, train_text_model

CONFIG = DocumentConfig(
    formats={"speech": 1, "text": 1, "tts": 2, "asr": 1, "aligned": 3}, prompt_probability=0.2
)
NAMES = ("input_ids", "labels", "position_ids", "loss_weights", "modality")


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> Vocabulary:
    model = train_text_model(tmp_path_factory.mktemp("text model"), "char")
    return Vocabulary.build(model, codec_info(), ["slt"])


def pieces_of(block) -> list[dict[str, np.ndarray]]:
    """A block cut where positions restart."""
    starts = np.flatnonzero(block["position_ids"].numpy() == 0)[1:]
    parts = {name: np.split(block[name].numpy(), starts) for name in NAMES}
    return [{name: parts[name][i] for name in NAMES} for i in range(len(starts) + 1)]


@settings(max_examples=15)
@given(
    block_length=st.sampled_from([100, 333, 1024]),  # documents have up to 540 tokens: at 100 most are cut
    epoch=st.integers(0, 5),
    speech_loss_weight=st.sampled_from([0.0, 0.1]),
)
def test_blocks_hold_every_token_of_every_document_once(vocabulary, block_length, epoch, speech_loss_weight):
    config = replace(CONFIG, speech_loss_weight=speech_loss_weight)
    documents = Documents([speech_rows(60)], vocabulary, config, seed=1)
    blocks = PackedBlocks(documents, block_length, epoch)
    found = Counter()
    padding = 0
    for block in [blocks[index] for index in range(len(blocks))]:
        assert all(block[name].shape == (block_length,) for name in NAMES)
        for piece in pieces_of(block):
            size = len(piece["input_ids"])
            assert piece["position_ids"].tolist() == list(range(size))
            if piece["input_ids"][0] == vocabulary.pad_id:
                assert (piece["input_ids"] == vocabulary.pad_id).all() and (piece["labels"] == IGNORED).all()
                assert not piece["loss_weights"].any() and not piece["modality"].any()
                padding += size
                continue
            found[tuple(map(tuple, (piece[name].tolist() for name in NAMES)))] += 1

    expected = Counter()
    for index in range(60):
        document = documents.build(epoch, index)
        for start in range(0, len(document), block_length):
            part = slice(start, start + block_length)
            weights = document.loss_weights[part].copy()
            weights[0] = 0.0  # nothing stands before it
            labels = [
                int(target) if weight else IGNORED
                for target, weight in zip(document.targets[part], weights, strict=True)
            ]
            row = (document.input_ids[part].tolist(), labels, list(range(len(labels))), weights.tolist())
            expected[tuple(map(tuple, (*row, document.modality[part].tolist())))] += 1
    assert found == expected
    assert padding == len(blocks) * block_length - documents.lengths(epoch).sum()


def test_types(vocabulary):
    block = PackedBlocks(Documents([speech_rows(9)], vocabulary, CONFIG, seed=1), 512, 0)[0]
    types = [torch.int64, torch.int64, torch.int64, torch.float32, torch.uint8]
    assert [block[name].dtype for name in NAMES] == types


def test_a_block_depends_on_its_number_alone(vocabulary):
    rows = speech_rows(150)
    blocks = PackedBlocks(Documents([rows], vocabulary, CONFIG, seed=1), 512, epoch=3)
    expected = [blocks[index] for index in range(len(blocks))]

    def same(block, other) -> bool:
        return all(torch.equal(block[name], other[name]) for name in NAMES)

    other = PackedBlocks(Documents([rows], vocabulary, CONFIG, seed=1), 512, epoch=3)
    for index in reversed(range(len(other))):
        assert same(other[index], expected[index])
    loader = DataLoader(other, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert all(same(block, other) for block, other in zip(loader, expected, strict=True))

    for seed, epoch in ((1, 4), (2, 3)):
        differs = PackedBlocks(Documents([rows], vocabulary, CONFIG, seed), 512, epoch)
        assert sum(same(differs[index], expected[index]) for index in range(min(len(differs), 20))) == 0


def test_blocks_are_shuffled(vocabulary):
    # Packed blocks come out in the order in which they were opened; an epoch must not end with what was left over.
    documents = Documents([speech_rows(400)], vocabulary, CONFIG, seed=1)
    first, second = (PackedBlocks(documents, 512, epoch) for epoch in (0, 1))
    for blocks in (first, second):
        order = [int(blocks[index]["input_ids"][-1] == vocabulary.pad_id) for index in range(len(blocks))]
        half = len(order) // 2
        assert abs(sum(order[:half]) - sum(order[half:])) < 4 * len(order) ** 0.5
    firsts = [[int(blocks[index]["input_ids"][5]) for index in range(20)] for blocks in (first, second)]
    assert firsts[0] != firsts[1]
