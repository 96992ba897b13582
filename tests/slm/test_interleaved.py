from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codec.foundation import UserError
from slm.documents.config import DocumentConfig, InterleavedConfig
from slm.documents.documents import Documents
from slm.documents.formats import Row, interleaved_spans
from slm.documents.rows import Source
from slm.documents.spans import Draws, _table, spoken_words
from slm.documents.word_frames import assign_frames
from slm.vocabulary import Vocabulary, split_words
from tests.slm.test_word_frames import alignments
from tests.slm.token_rows import MemoryRows, codec_info, speech_rows, train_text_model

PLAIN = DocumentConfig(formats={"interleaved": 1.0}, corruption=0.0, voice_tag_probability=0.0)
CODEC = codec_info((64, 32))


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory):
    directory = tmp_path_factory.mktemp("text models")
    models = {kind: train_text_model(directory, kind) for kind in ("char", "bpe")}
    return {
        (kind, used): Vocabulary.build(model, CODEC, ["slt"], max_quantizers=used)
        for kind, model in models.items()
        for used in (1, 2)
    }


def row_of(text, words, frames, vocabulary, config, seed=0, epoch=0, key=0) -> Row:
    stream = (np.arange(frames)[:, None] + [0, 7]).astype(np.uint16) % [64, 32]
    rows = MemoryRows([stream.astype(np.uint16).reshape(-1)], [text], [None], [words], CODEC)
    return Row(rows, 0, np.array([key], dtype=np.uint64), vocabulary, config, Draws(seed, epoch))


@given(
    alignments(),
    st.sampled_from([("char", 1), ("bpe", 2)]),
    st.sampled_from(["poisson", "uniform", "fixed"]),
    st.floats(1, 6),
    st.floats(0.1, 0.9),
    st.integers(0, 1000),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_word_is_in_one_modality(vocabularies, alignment, kind, lengths, mean, share, key):
    text, words, frames = alignment
    vocabulary = vocabularies[kind]
    config = replace(PLAIN, interleaved=InterleavedConfig(lengths, mean, share))
    row = row_of(text, words, frames, vocabulary, config, key=key)
    units = assign_frames(text, words, frames, 24.0)
    documents = Documents([row.dataset], vocabulary, config, seed=0) if frames or text.strip() else None
    if units is None:
        assert documents is None or "interleaved" not in documents.counts(0).documents
        with pytest.raises(ValueError, match="no word of this row"):
            interleaved_spans(row)
        return
    spans = interleaved_spans(row)
    # Order kept, all words there once, modalities in turn.
    assert "".join(span.text for span in spans) == text
    assert all(a.spoken != b.spoken for a, b in pairwise(spans))
    pieces = split_words(text)
    used = vocabulary.num_quantizers
    codes = row.speech_ids.reshape(-1, used)
    piece, last_frame = 0, 0
    firsts = [*units.first_piece.tolist(), len(pieces)]
    for span in spans:
        first = piece
        piece += len(split_words(span.text))
        assert "".join(pieces[first:piece]) == span.text and first in firsts and piece in firsts
        inside = slice(firsts.index(first), firsts.index(piece))
        if span.spoken:
            assert units.placed[inside].all()  # a word without a place is never speech
            assert span.begin == units.begin[inside][0] and span.end == units.end[inside][-1]
            assert last_frame <= span.begin < span.end <= frames
            last_frame = span.end
            assert np.array_equal(span.ids.reshape(-1, used), codes[span.begin : span.end])
        else:
            assert vocabulary.decode_text(span.ids) == span.text
            assert (span.begin, span.end) == (0, 0)
    # The document is those spans, and as long as it was planned to be.
    document = documents.build(0, 0)
    assert len(document) == documents.lengths(0)[0]
    if key == 0:
        marks = {True: vocabulary.speech_id, False: vocabulary.text_id}
        ids = [i for span in spans for i in (marks[span.spoken], *span.ids.tolist())]
        assert document.targets.tolist() == [*ids, vocabulary.eos_id]


def test_text_alone_is_the_text(vocabularies):
    """Where no word has frames to spare for speech, the text comes back exactly."""
    vocabulary = vocabularies["bpe", 1]
    rows = speech_rows(30, codec=CODEC)
    for index in range(30):
        words = [(word, None, None) for word, _, _ in rows.timed[index]]
        words[0] = rows.timed[index][0]
        config = replace(PLAIN, interleaved=InterleavedConfig(span_words=1.0, speech_share=0.01))
        spans = interleaved_spans(row_of(rows.texts[index], words, 100, vocabulary, config, key=index))
        if len(spans) == 1:
            assert np.array_equal(spans[0].ids, vocabulary.encode_text(rows.texts[index]))
        assert "".join(span.text for span in spans) == rows.texts[index]


# Layout, weights


def test_layout_and_weights_where_times_are_simple(vocabularies):
    vocabulary = vocabularies["char", 1]
    words = [("well", 0.5, 0.8), ("i", 1.0, 1.1), ("see", 1.5, 1.7)]
    config = replace(PLAIN, interleaved=InterleavedConfig("fixed", 1.0, 0.5, switch_loss_weight=0.25))
    seen = set()
    for seed in range(8):
        row = row_of("Well, I see.", words, 48, vocabulary, config, seed)
        document = Documents([row.dataset], vocabulary, config, seed).build(0, 0)
        speech = row.speech_ids.tolist()
        v, text = vocabulary, lambda words: vocabulary.encode_text(words).tolist()
        starts_with_speech = [
            v.speech_id,
            *speech[:24],
            v.text_id,
            *text(" I"),
            v.speech_id,
            *speech[36:],
            v.eos_id,
        ]
        starts_with_text = [
            v.text_id,
            *text("Well,"),
            v.speech_id,
            *speech[24:36],
            v.text_id,
            *text(" see."),
            v.eos_id,
        ]
        ids = document.targets.tolist()
        assert ids in (starts_with_speech, starts_with_text)
        seen.add(ids[0])
        switches = np.isin(document.targets, [v.speech_id, v.text_id])
        expected = np.where(switches, 0.25, 1.0)
        expected[0] = 0.0
        assert document.loss_weights.tolist() == expected.tolist()
    assert len(seen) == 2


def test_a_row_that_cannot_be_interleaved_takes_another_format(vocabularies):
    rows = speech_rows(4, codec=CODEC)
    rows.timed[0] = None
    rows.timed[1] = [(word, None, None) for word, _, _ in rows.timed[1]]
    rows.texts[2] = None
    documents = Documents([rows], vocabularies["char", 1], PLAIN, seed=0)
    assert documents.counts(0).documents == {"tts": 2, "speech": 1, "interleaved": 1}
    assert documents.counts(0).drawn == {"interleaved": 4}


# Distributions


@pytest.mark.parametrize("kind", ["poisson", "uniform", "fixed"])
@pytest.mark.parametrize("mean", [1.0, 1.3, 2.5, 10.0, 23.4])
def test_span_lengths_have_their_mean(kind, mean):
    table = _table(kind, mean)
    assert table.mean == pytest.approx(mean, rel=1e-6)
    fractions = (np.arange(200_000) + 0.5) / 200_000
    drawn = table.length(fractions)
    assert drawn.min() >= 1 and abs(drawn.mean() - mean) < 0.01
    if kind == "fixed":
        assert set(drawn.tolist()) <= {int(mean), int(np.ceil(mean))}
    if kind == "uniform" and mean in (2.5, 10.0):
        assert set(drawn.tolist()) == set(range(1, int(2 * mean)))
        assert np.ptp(np.bincount(drawn)[1:]) <= 1
    if kind == "poisson" and mean > 5:
        assert abs(drawn.var() - mean) < 0.25 * mean  # without 0 a little less than the mean
    rests = table.rest(fractions)
    squares = (drawn.astype(float) ** 2).mean()
    assert rests.mean() == pytest.approx((squares / mean + 1) / 2, rel=0.01)  # of a renewal process


@pytest.mark.parametrize("kind", ["poisson", "uniform", "fixed"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.75])
def test_every_place_of_a_text_has_the_same_share_of_speech(kind, share):
    config = InterleavedConfig(kind, span_words=3.0, speech_share=share)
    streams = Draws(1, 2).streams("test", np.arange(20_000))
    spoken = spoken_words(streams, np.full(20_000, 30), config).reshape(20_000, 30)
    assert np.abs(spoken.mean(0) - share).max() < 4.5 * (share * (1 - share) / 20_000) ** 0.5
    inner = np.flatnonzero(np.diff(spoken[:, :].reshape(-1).astype(int)))
    turns = (np.diff(spoken, axis=1) != 0).sum()
    assert turns / (20_000 * 29) == pytest.approx(2 / sum(config.mean_words), rel=0.05)
    assert inner.size >= turns


def test_documents_of_different_lengths_are_drawn_as_alone():
    config = InterleavedConfig(span_words=2.0, speech_share=0.3)
    counts = np.random.default_rng(0).integers(0, 40, size=200)
    streams = Draws(0, 0).streams("test", np.arange(200))
    together = np.split(spoken_words(streams, counts, config), np.cumsum(counts)[:-1])
    for index, count in enumerate(counts.tolist()):
        alone = spoken_words(streams[index : index + 1], np.array([count]), config)
        assert np.array_equal(together[index], alone)


# A function of (seed, epoch, row)


def test_an_interleaved_document_depends_on_seed_epoch_and_row_alone(vocabularies):
    vocabulary = vocabularies["bpe", 2]
    rows = speech_rows(40, codec=CODEC)
    config = replace(PLAIN, interleaved=InterleavedConfig(span_words=2.0))

    def by_row(datasets, seed=1, epoch=2):
        documents = Documents(datasets, vocabulary, config, seed)
        order = documents.plan(epoch).rows.tolist()
        assert documents.lengths(epoch).tolist() == [
            len(documents.build(epoch, i)) for i in range(len(order))
        ]
        return {row: documents.build(epoch, index).targets.tolist() for index, row in enumerate(order)}

    first = by_row([rows])
    assert by_row([rows]) == first
    beside_others = by_row([rows, speech_rows(20, seed=3, codec=CODEC)])
    assert all(beside_others[row] == first[row] for row in first)
    for seed, epoch in ((2, 2), (1, 3)):
        others = by_row([rows], seed, epoch)
        assert sum(others[row] == first[row] for row in first) < 8
    # A row that comes again in an epoch is cut otherwise.
    documents = Documents([Source(rows, 9.0), Source(speech_rows(90, 5, CODEC), 1.0)], vocabulary, config, 0)
    again = [documents.build(0, int(i)).targets.tolist() for i in np.flatnonzero(documents.plan(0).rows == 0)]
    assert len(again) > 2 and len(set(map(tuple, again))) > 1


def test_settings_that_make_no_spans_are_refused():
    for wrong in (
        {"span_lengths": "normal"},
        {"span_words": 0.5},
        {"speech_share": 0.0},
        {"speech_share": 1.0},
        {"switch_loss_weight": -1.0},
    ):
        with pytest.raises(UserError, match=f"interleaved.{next(iter(wrong))}"):
            InterleavedConfig(**wrong)
