"""Rows longer than a block, in parts: compared with all ways to cut, and put together again."""

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm.documents.config import DocumentConfig
from slm.documents.documents import Documents
from slm.documents.formats import FORMATS, SPEECH, TEXT
from slm.documents.long_rows import RowParts, cut_evenly, fitting_rows
from slm.documents.rows import Source
from slm.documents.word_frames import assign_frames
from slm.packing.blocks import PackedBlocks
from slm.training.report import report_epoch
from slm.vocabulary import Vocabulary, split_words
from tests.slm.token_rows import MemoryRows, codec_info, speech_rows, train_text_model

EVERY_FORMAT = DocumentConfig(formats=dict.fromkeys(FORMATS, 1.0), prompt_probability=0.3)


@pytest.fixture(scope="module")
def text_models(tmp_path_factory):
    directory = tmp_path_factory.mktemp("text models")
    return {kind: train_text_model(directory, kind) for kind in ("char", "bpe")}


def long_rows(count: int, sizes: tuple[int, ...]) -> MemoryRows:
    """Utterances one after the other in a row, some of their words without times."""
    random, rows = np.random.default_rng(0), speech_rows(6 * count, 1, codec_info(sizes))
    for index in range(count):
        streams, texts, words, since = [], [], [], 0.0
        for part in range(6 * index, 6 * index + 6):
            streams.append(rows.streams[part])
            texts.append(rows.texts[part])
            drawn = random.random(len(rows.timed[part])) < 0.2
            words += [
                (word, None, None) if hidden else (word, since + start, since + end)
                for (word, start, end), hidden in zip(rows.timed[part], drawn, strict=True)
            ]
            since += len(rows.streams[part]) / len(sizes) / 24
        rows.streams[index], rows.texts[index] = np.concatenate(streams), " ".join(texts)
        rows.timed[index] = words
    return MemoryRows(
        *(column[:count] for column in (rows.streams, rows.texts, rows.speakers, rows.timed)), rows.info
    )


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), min_size=1, max_size=9), st.integers(1, 25))
def test_as_few_parts_as_fit_and_the_longest_as_short_as_can_be(stretches, limit):
    sizes = np.array([size for size, _ in stretches])
    heads = np.maximum(sizes - [less for _, less in stretches], 1)

    def longest(cuts):  # of what could have been cut
        bounds = pairwise([*cuts, len(sizes)])
        return max((heads[a] + sizes[a + 1 : b].sum() for a, b in bounds if b - a > 1), default=0)

    every = [(0, *cuts) for n in range(len(sizes)) for cuts in combinations(range(1, len(sizes)), n)]
    fewest = min(len(cuts) for cuts in every if longest(cuts) <= limit)
    shortest = min(longest(cuts) for cuts in every if len(cuts) == fewest)
    found = cut_evenly(heads, sizes, limit)
    assert (len(found), longest(found)) == (fewest, shortest)


@pytest.mark.parametrize(("kind", "sizes"), [("char", (2048,)), ("bpe", (64, 32))])
def test_parts_are_the_row_and_fit_into_a_block(text_models, kind, sizes):
    rows, length = long_rows(8, sizes), 300
    vocabulary = Vocabulary.build(text_models[kind], rows.info, ["slt", "rms"])
    tts = DocumentConfig(formats={"tts": 1.0}, voice_tag_probability=1.0, corruption=0.0)
    source = fitting_rows(Source(rows), vocabulary, tts, length)
    cut = source.dataset
    assert isinstance(cut, RowParts) and len(cut) > 16
    documents = Documents([rows], vocabulary, tts, seed=0, longest=length)
    for index in range(len(cut)):
        document = documents.build(0, index)
        assert len(document) <= length and {TEXT, SPEECH} <= set(document.modality.tolist())
    assert documents.counts(0).documents == {"tts": len(cut)}
    for near in range(length, length + 30):  # some part is as long as may be
        counts = Documents([rows], vocabulary, tts, seed=0, longest=near).counts(0)
        assert set(counts.documents) == {"tts"} and not counts.too_long
    for row in range(len(rows)):
        own = [index for index in range(len(cut)) if cut.rows[index] == row]
        assert " ".join(cut.text(index) for index in own).split() == rows.text(row).split()
        assert np.array_equal(np.concatenate([cut.codes(index) for index in own]), rows.codes(row))
        assert [cut.lengths[index] for index in own] == [len(cut.codes(index)) for index in own]
        assert [word for index in own for word, _, _ in cut.words(index)] == [
            word for word, _, _ in rows.words(row)
        ]
        assert {cut.speaker(index) for index in own} == {rows.speaker(row)}
        # every word has in its part the frames that it has in the row
        whole = placed(rows.text(row), rows.words(row), rows.codes(row), len(sizes))
        before = piece = 0
        found = []
        for index in own:
            part = placed(cut.text(index), cut.words(index), cut.codes(index), len(sizes))
            found += [(first + piece, begin + before, end + before) for first, begin, end in part]
            before += len(cut.codes(index)) // len(sizes)
            piece += len(split_words(cut.text(index)))
        assert found == whole


def placed(text, words, codes, quantizers):
    units = assign_frames(text, words, len(codes) // quantizers, 24.0)
    columns = (column[units.placed].tolist() for column in (units.first_piece, units.begin, units.end))
    return [*zip(*columns, strict=True)]


@pytest.mark.parametrize("sizes", [(2048,), (64, 32)])
def test_no_document_of_any_format_is_torn(text_models, sizes):
    rows = long_rows(10, sizes)
    vocabulary = Vocabulary.build(text_models["bpe"], rows.info, ["slt"])
    rows.timed[3] = None  # nowhere to cut
    documents = Documents(
        [rows, speech_rows(10, 3, rows.info)], vocabulary, EVERY_FORMAT, seed=0, longest=600
    )
    for epoch in range(2):
        plan = documents.plan(epoch)
        for index, length in enumerate(plan.lengths.tolist()):
            document = documents.build(epoch, index)
            assert len(document) == length
            assert length <= 600 or not {TEXT, SPEECH} <= set(document.modality.tolist())
    counts = documents.counts(0)
    lines, values = report_epoch(PackedBlocks(documents, 600, 0), counts, ["a", "b"], [None, None], None)
    parts = len(plan.rows) - 11
    assert values["data/cut_rows"] == 9 and values["data/row_parts"] == parts
    assert f"9 rows of text and speech are longer than a block: cut before words into {parts} rows" in lines


def test_nothing_is_cut_where_nothing_is_torn(text_models):
    rows = long_rows(2, (2048,))
    vocabulary = Vocabulary.build(text_models["char"], rows.info)
    alone = replace(EVERY_FORMAT, formats={"speech": 1.0, "text": 1.0, "tts": 0.0})
    for config, longest in ((EVERY_FORMAT, None), (alone, 100), (EVERY_FORMAT, 5_000)):
        assert fitting_rows(Source(rows), vocabulary, config, longest).dataset is rows
