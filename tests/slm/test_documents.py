import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.foundation import UserError
from slm.documents.config import DocumentConfig
from slm.documents.documents import Documents
from slm.documents.formats import CONTROL, FORMATS, SPEECH, TEXT, Document
from slm.documents.mixture import rows_of_epoch, rows_per_epoch
from slm.documents.rows import Source, TextRows
from slm.documents.spans import Draws, below, numbers, uniform
from slm.packing.blocks import PackedBlocks
from slm.training.report import check_formats, report_epoch
from slm.vocabulary import Vocabulary, split_words
from tests.slm.token_rows import SENTENCES, MemoryRows, codec_info, speech_rows, train_text_model

PLAIN = DocumentConfig(corruption=0.0, voice_tag_probability=0.0)
EVERYTHING = DocumentConfig(
    formats={"speech": 1, "text": 1, "tts": 2, "asr": 1, "aligned": 3}, prompt_probability=0.4
)


@pytest.fixture(scope="module")
def text_models(tmp_path_factory):
    directory = tmp_path_factory.mktemp("text models")
    return {kind: train_text_model(directory, kind) for kind in ("char", "bpe")}


@pytest.fixture(scope="module")
def vocabulary(text_models) -> Vocabulary:
    return Vocabulary.build(text_models["bpe"], codec_info(), ["slt"])


def only(format: str, config: DocumentConfig = PLAIN) -> DocumentConfig:
    return replace(config, formats={format: 1.0})


def equal(a: Document, b: Document) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("input_ids", "targets", "loss_weights", "modality")
    )


def row_of(documents: Documents, index: int, epoch: int = 0) -> int:
    return int(documents.plan(epoch).rows[index])


# Layouts, written out


def test_layouts_and_weights(vocabulary):
    rows = speech_rows(1)
    v, text, codes = vocabulary, vocabulary.encode_text(rows.texts[0]).tolist(), rows.streams[0].tolist()
    speech = [v.speech_start + code for code in codes]
    t, s = len(text), len(speech)
    config = replace(PLAIN, text_loss_weight=0.25, speech_loss_weight=0.5)
    expected = {
        "speech": ([v.speech_id, *speech, v.eos_id], [0] + [1] * (s + 1), [0] + [2] * s + [0]),
        "text": ([v.text_id, *text, v.eos_id], [0] + [1] * (t + 1), [0] + [1] * t + [0]),
        "tts": (
            [v.text_id, *text, v.speech_id, *speech, v.eos_id],
            [0] + [0.25] * (t + 1) + [1] * (s + 1),
            [0] + [1] * t + [0] + [2] * s + [0],
        ),
        "asr": (
            [v.speech_id, *speech, v.text_id, *text, v.eos_id],
            [0] + [0.5] * (s + 1) + [1] * (t + 1),
            [0] + [2] * s + [0] + [1] * t + [0],
        ),
    }
    for format, (ids, weights, modality) in expected.items():
        document = Documents([rows], v, only(format, config), seed=0).build(0, 0)
        assert document.input_ids.dtype == document.targets.dtype == np.int32
        assert document.input_ids.tolist() == document.targets.tolist() == ids
        assert document.loss_weights.tolist() == weights and document.loss_weights.dtype == np.float32
        assert document.modality.tolist() == modality and document.modality.dtype == np.uint8


def test_aligned_layout_where_times_are_simple(vocabulary):
    rows = MemoryRows(
        streams=[np.arange(48, dtype=np.uint16)],
        texts=["Well, I - see."],
        speakers=[None],
        timed=[[("well", 0.5, 0.8), ("i", 1.01, 1.1), ("see", 1.5, 1.7)]],
    )
    v = vocabulary
    document = Documents([rows], v, replace(only("aligned"), max_words=1), seed=0).build(0, 0)
    parts = [("Well,", range(0, 24)), (" I -", range(24, 36)), (" see.", range(36, 48))]
    ids, weights = [], []
    for text, codes in parts:
        text_ids = v.encode_text(text).tolist()
        ids += [v.text_id, *text_ids, v.speech_id, *(v.speech_start + code for code in codes)]
        weights += [1.0, *[0.1] * (len(text_ids) + 1), *[1.0] * len(codes)]
    assert document.targets.tolist() == [*ids, v.eos_id]
    assert document.loss_weights.tolist() == [0.0, *np.float32([*weights[1:], 1.0]).tolist()]


@pytest.mark.parametrize("kind", ["char", "bpe"])
@pytest.mark.parametrize("sizes", [(2048,), (64, 32, 16)])
def test_aligned_uses_every_frame_once_and_keeps_the_text(text_models, kind, sizes):
    codec = codec_info(sizes)
    vocabulary = Vocabulary.build(text_models[kind], codec, max_quantizers=2)
    rows = speech_rows(60, codec=codec)
    documents = Documents([rows], vocabulary, only("aligned"), seed=1)
    assert documents.counts(0).documents == {"aligned": 60}
    per_span = Counter()
    for index in range(60):
        document, row = documents.build(0, index), row_of(documents, index)
        ids = document.targets.tolist()
        assert ids[-1] == vocabulary.eos_id
        spans = [[]]
        for token in ids[:-1]:
            if token == vocabulary.text_id:
                spans.append([])
            else:
                spans[-1].append(token)
        assert spans.pop(0) == []
        texts, streams = [], []
        for span in spans:
            middle = span.index(vocabulary.speech_id)
            texts.append(vocabulary.decode_text(span[:middle]))
            streams.append(vocabulary.ids_to_codes(np.array(span[middle + 1 :])))
        assert "".join(texts) == rows.texts[row]
        used = vocabulary.num_quantizers
        expected = rows.streams[row].reshape(-1, len(sizes))[:, :used].reshape(-1)
        assert np.concatenate(streams).tolist() == expected.tolist()
        assert all(len(stream) >= used and len(stream) % used == 0 for stream in streams)

        # Spans meet at the frame nearest to the next word; words that begin in one frame are not parted.
        words = zip_spoken(rows.texts[row], rows.timed[row])
        starts = np.cumsum([len(text) for text in texts])[:-1]
        cuts = np.cumsum([len(stream) // used for stream in streams])[:-1]
        frames = len(expected) // used
        seconds = [next(word[1] for piece, word in words if piece == start) for start in starts]
        assert cuts.tolist() == [round(second * 24) for second in seconds] and cuts[-1] < frames
        for first, last in zip([0, *starts], [*starts, len(rows.texts[row])], strict=True):
            inside = [word for piece, word in words if first <= piece < last]
            per_span[len({round(start * 24) for _, start, _ in inside})] += 1
    assert set(per_span) == {1, 2, 3, 4}


def zip_spoken(text: str, words: list) -> list:
    """The first character of each spoken piece, with the timed word that begins there."""
    found, position, index = [], 0, 0
    for piece in split_words(text):
        letters = "".join(c for c in piece if c.isalnum())
        spelled = ""
        first = index
        while len(spelled) < len(letters):
            spelled += "".join(c for c in words[index][0] if c.isalnum())
            index += 1
        if letters:
            found.append((position, words[first]))
        position += len(piece)
    return found


# Lengths, purity


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 100),
    words=st.tuples(st.integers(1, 4), st.integers(0, 4)),
    quantizers=st.sampled_from([(1, 1), (3, 1), (3, 2), (3, 3)]),
)
def test_lengths_are_those_of_the_documents(text_models, seed, epoch, words, quantizers):
    codec = codec_info((64, 32, 16)[: quantizers[0]])
    vocabulary = Vocabulary.build(text_models["char"], codec, ["slt"], max_quantizers=quantizers[1])
    rows = speech_rows(40, seed=3, codec=codec)
    rows.texts[::7] = [None] * 6
    rows.timed[::5] = [None] * 8
    config = replace(EVERYTHING, min_words=words[0], max_words=sum(words))
    documents = Documents([rows], vocabulary, config, seed)
    lengths = documents.lengths(epoch)
    assert lengths.dtype == np.int64
    assert [len(documents.build(epoch, index)) for index in range(len(lengths))] == lengths.tolist()


def test_a_document_depends_on_seed_epoch_and_row_alone(vocabulary):
    rows = speech_rows(50)
    documents = Documents([rows], vocabulary, EVERYTHING, seed=5)
    built = {(epoch, index): documents.build(epoch, index) for epoch in (0, 1, 2) for index in range(50)}

    order = np.random.default_rng(0).permutation(50).tolist()
    other = pickle.loads(pickle.dumps(Documents([rows], vocabulary, EVERYTHING, seed=5)))
    for epoch in (2, 0, 1, 0):
        for index in order[:20]:
            assert equal(other.build(epoch, index), built[epoch, index])

    # Rows of another dataset beside them change nothing but the order.
    more = Documents([rows, speech_rows(30, seed=9)], vocabulary, EVERYTHING, seed=5)
    by_row = {row_of(more, index, epoch=1): index for index in range(80)}
    for index in range(50):
        assert equal(more.build(1, by_row[row_of(documents, index, epoch=1)]), built[1, index])

    def looks(seed: int, epoch: int) -> list:
        documents = Documents([rows], vocabulary, EVERYTHING, seed)
        plan = documents.plan(epoch)
        at = np.argsort(plan.rows)
        return [documents.build(epoch, int(index)).input_ids.tolist() for index in at]

    assert looks(5, 0) == looks(5, 0)
    for seed, epoch in ((6, 0), (5, 1)):
        assert sum(a == b for a, b in zip(looks(5, 0), looks(seed, epoch), strict=True)) < 5


def test_random_numbers_are_even_and_independent():
    keys = np.arange(200_000)
    draws = Draws(7, 3)
    streams = draws.streams("test", keys)
    first, second = uniform(numbers(streams, 0)), uniform(numbers(streams, 1))
    other = uniform(numbers(Draws(7, 4).streams("test", keys), 0))
    assert first.min() >= 0 and first.max() < 1
    for values in (first, second, other):
        counts = np.histogram(values, bins=100, range=(0, 1))[0]
        # Chi-square with 99 degrees of freedom: 149 has a probability of 0.1 %.
        assert ((counts - 2000) ** 2 / 2000).sum() < 149
    for a, b in ((first, second), (first, other), (first[1:], first[:-1])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.01
    drawn = below(numbers(streams, 2), 7)
    assert ((np.bincount(drawn, minlength=7) - 200_000 / 7) ** 2 / (200_000 / 7)).sum() < 22.5  # 0.1 %
    assert np.array_equal(numbers(streams[5:6], np.arange(3))[2:], numbers(streams, 2)[5:6])


# Formats


def test_formats_come_by_their_weights(vocabulary):
    rows = speech_rows(4000)
    counts = Documents(
        [rows], vocabulary, replace(PLAIN, formats={"tts": 6, "speech": 3, "asr": 1}), 0
    ).counts(0)
    for format, share in (("tts", 0.6), ("speech", 0.3), ("asr", 0.1)):
        assert abs(counts.documents[format] / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5
    assert counts.documents == counts.drawn and sum(counts.documents.values()) == 4000
    assert counts.voice_tags == counts.prompts == 0


def test_rows_that_lack_something_take_another_format(vocabulary):
    rows = speech_rows(6)
    rows.timed[0] = None
    rows.timed[1] = [("other", 0.0, 1.0)]
    rows.texts[2] = rows.timed[2] = None
    rows.texts[3] = ""
    rows.streams[4] = np.zeros(0, dtype=np.uint16)
    rows.streams[5], rows.texts[5] = np.zeros(0, dtype=np.uint16), None  # nothing at all: left out

    def formats(format: str) -> dict[int, str]:
        documents = Documents([rows], vocabulary, only(format), seed=0)
        plan = documents.plan(0)
        assert sum(documents.counts(0).documents.values()) == 5
        assert documents.counts(0).drawn == {format: 5}
        built = {int(row): documents.build(0, index) for index, row in enumerate(plan.rows)}
        return {row: _name(document, vocabulary) for row, document in built.items()}

    aligned = formats("aligned")
    assert [aligned[row] for row in range(5)] == ["tts", "tts", "speech", "speech", "text"]
    assert [formats("tts")[row] for row in range(5)] == ["tts", "tts", "speech", "speech", "text"]
    assert [formats("asr")[row] for row in range(5)] == ["asr", "asr", "speech", "speech", "text"]
    assert [formats("text")[row] for row in range(5)] == ["text", "text", "speech", "speech", "text"]

    # Texts are not read when only speech is asked for.
    assert Documents([rows], vocabulary, only("speech"), seed=0).counts(0).documents == {"speech": 4}


def _name(document: Document, vocabulary: Vocabulary) -> str:
    controls = [t for t in document.targets.tolist() if t in (vocabulary.text_id, vocabulary.speech_id)]
    names = {
        (vocabulary.text_id,): "text",
        (vocabulary.speech_id,): "speech",
        (vocabulary.text_id, vocabulary.speech_id): "tts",
        (vocabulary.speech_id, vocabulary.text_id): "asr",
    }
    return names.get(tuple(controls), "aligned")


def test_words_that_begin_in_one_frame_share_a_span(vocabulary):
    words = [("a", 0.0, 0.01), ("b", 0.01, 0.02), ("c", 0.04, 0.05), ("d", 0.3, 0.4)]  # frames 0, 0, 1, 7
    for frames, spans in ((2, ["a b", " c d"]), (9, ["a b", " c", " d"])):
        rows = MemoryRows([np.arange(frames, dtype=np.uint16)], ["a b c d"], [None], [words])
        documents = Documents([rows], vocabulary, replace(only("aligned"), max_words=1), seed=0)
        document = documents.build(0, 0)
        assert len(document) == documents.lengths(0)[0]
        texts = np.split(document.targets, np.flatnonzero(document.targets == vocabulary.text_id))[1:]
        assert [vocabulary.decode_text(span) for span in texts] == spans


# Corruption, voices, prompts


@pytest.mark.parametrize("sizes", [(2048,), (64, 16)])
def test_corruption_changes_what_is_seen_and_not_what_is_predicted(text_models, sizes):
    codec = codec_info(sizes)
    vocabulary = Vocabulary.build(text_models["char"], codec)
    rows = speech_rows(400, codec=codec)
    config = replace(EVERYTHING, corruption=0.05)
    noisy = Documents([rows], vocabulary, config, seed=0)
    clean = Documents([rows], vocabulary, config.without_noise(), seed=0)
    speech = changed = 0
    replacements = []
    for index in range(400):
        a, b = noisy.build(0, index), clean.build(0, index)
        assert equal(b, replace(a, input_ids=a.targets))
        different = a.input_ids != a.targets
        assert (a.modality[different] == SPEECH).all()
        quantizer = np.searchsorted(vocabulary.speech_offsets, a.input_ids[different], side="right")
        assert (
            quantizer == np.searchsorted(vocabulary.speech_offsets, a.targets[different], side="right")
        ).all()
        speech += int((a.modality == SPEECH).sum())
        changed += int(different.sum())
        replacements += a.input_ids[different].tolist()
    # One in `size` replacements is what was there before.
    expected = 0.05 * (1 - np.mean([1 / size for size in sizes]))
    assert abs(changed / speech - expected) < 4 * (0.05 / speech) ** 0.5
    starts, ends = vocabulary.speech_offsets, vocabulary.speech_offsets + np.array(sizes)
    for start, end in zip(starts, ends, strict=True):
        codes = np.array([r - start for r in replacements if start <= r < end])
        assert abs((codes.mean() + 0.5) / (end - start) - 0.5) < 4 / (12 * len(codes)) ** 0.5


def test_voice_tags_stand_first_and_have_no_loss(vocabulary):
    rows = speech_rows(200)  # half of them by "rms", who has no tag
    rows.speakers[:20] = [None] * 20
    config = replace(
        EVERYTHING, voice_tag_probability=1.0, prompt_probability=0.0, formats={"tts": 1, "asr": 1}
    )
    documents = Documents([Source(rows, voice="slt")], vocabulary, config, seed=0)
    tagged = 0
    for index in range(200):
        document, row = documents.build(0, index), row_of(documents, index)
        is_tts = vocabulary.speech_id in document.targets[2:] and document.targets[0] != vocabulary.speech_id
        has_tag = is_tts and (rows.speakers[row] or "slt") == "slt"
        assert (document.input_ids[0] == vocabulary.voices["slt"]) == has_tag
        if has_tag:
            tagged += 1
            assert document.input_ids[1] == vocabulary.text_id
            assert document.modality[0] == CONTROL and document.loss_weights[:2].tolist() == [0.0, 0.0]
    assert documents.counts(0).voice_tags == tagged > 20

    config = replace(config, formats={"tts": 1}, voice_tag_probability=0.3)
    counts = Documents([speech_rows(2000)], vocabulary, config, seed=0).counts(0)
    assert abs(counts.voice_tags / 1000 - 0.3) < 4 * (0.3 * 0.7 / 1000) ** 0.5


@pytest.mark.parametrize("format", ["tts", "aligned"])
def test_a_prompt_is_a_whole_document_of_the_same_speaker(vocabulary, format):
    rows = speech_rows(200)
    rows.texts[7] = None
    config = replace(
        only(format),
        prompt_probability=1.0,
        prompt_text_probability=0.5,
        prompt_loss_weight=0.5,
        prompt_seconds=8.0,
        voice_tag_probability=1.0,
    )
    documents = Documents([rows], vocabulary, config, seed=0)
    without = Documents(
        [rows], vocabulary, replace(config, prompt_probability=0.0, voice_tag_probability=0), 0
    )
    by_row = {row_of(without, index): index for index in range(200)}
    parts = {format: Documents([rows], vocabulary, only(format), seed=0) for format in ("tts", "speech")}
    place = {f: {row_of(d, index): index for index in range(200)} for f, d in parts.items()}
    prompts = Counter()
    for index in range(200):
        document, row = documents.build(0, index), row_of(documents, index)
        prompt_row = int(documents.plan(0).prompts[index])
        body = without.build(0, by_row[row])
        head = len(document) - len(body)
        assert document.targets[head:].tolist() == body.targets.tolist()
        assert document.loss_weights[head:].tolist() == body.loss_weights.tolist()
        tag = (
            [vocabulary.voices["slt"]]
            if rows.speakers[row] == "slt" and _name(body, vocabulary) != "text"
            else []
        )
        if prompt_row < 0:
            prompts["none"] += 1
            assert document.targets[:head].tolist() == tag
            continue
        assert prompt_row != row and rows.speakers[prompt_row] == rows.speakers[row]
        assert len(rows.streams[prompt_row]) <= 8 * 24
        kind = "tts" if documents.plan(0).prompt_texts[index] else "speech"
        expected = parts[kind].build(0, place[kind][prompt_row])
        assert document.targets[:head].tolist() == [*tag, *expected.targets.tolist()]
        weights = document.loss_weights[len(tag) : head]
        assert np.allclose(weights, expected.loss_weights * 0.5)
        prompts[kind] += 1
        if rows.texts[prompt_row] is None:
            assert kind == "speech"
    assert min(prompts["tts"], prompts["speech"], prompts["none"]) > 20
    assert documents.counts(0).prompts == prompts["tts"] + prompts["speech"]


def test_who_speaks_alone_has_no_prompt(vocabulary):
    rows = speech_rows(6)
    rows.speakers[:] = ["a", "b", "b", "b", None, None]
    config = replace(only("tts"), prompt_probability=1.0, prompt_seconds=100.0)
    found = {row: set() for row in range(6)}
    documents = Documents([rows], vocabulary, config, seed=0)
    for epoch in range(30):
        plan = documents.plan(epoch)
        for row, prompt in zip(plan.rows.tolist(), plan.prompts.tolist(), strict=True):
            found[row].add(prompt)
    assert found == {0: {-1}, 1: {2, 3}, 2: {1, 3}, 3: {1, 2}, 4: {-1}, 5: {-1}}


def test_speakers_of_the_same_name_in_two_datasets_are_two(vocabulary):
    rows, others = speech_rows(4), speech_rows(4, seed=1)
    config = replace(only("tts"), prompt_probability=1.0, prompt_seconds=100.0)
    documents = Documents([rows, others], vocabulary, config, seed=0)
    for epoch in range(10):
        plan = documents.plan(epoch)
        assert ((plan.rows < 4) == (plan.prompts < 4)).all()


# Mixtures


def test_without_weights_every_row_comes_once_an_epoch(vocabulary):
    documents = Documents([speech_rows(30), speech_rows(20)], vocabulary, PLAIN, seed=0)
    orders = [documents.plan(epoch).rows.tolist() for epoch in range(3)]
    for order in orders:
        assert sorted(order) == list(range(50))
    assert orders[0] != orders[1] != orders[2] and orders[0] != sorted(orders[0])


def test_weights_are_shares_of_tokens(vocabulary):
    long, short = speech_rows(300), speech_rows(300, seed=1)
    short.streams = [stream[: len(stream) // 4] for stream in short.streams]
    documents = Documents(
        [Source(long, weight=1.0), Source(short, weight=3.0)], vocabulary, only("speech"), seed=0
    )
    plan = documents.plan(0)
    tokens = documents.table.speech[plan.rows]
    assert abs(tokens[plan.rows >= 300].sum() / tokens.sum() - 0.75) < 0.03
    assert abs(tokens.sum() / documents.table.speech.sum() - 1) < 0.03  # as long as an epoch without weights

    zero = Documents(
        [Source(long, weight=1.0), Source(short, weight=0.0)], vocabulary, only("speech"), seed=0
    )
    assert (zero.plan(0).rows < 300).all()


def test_weights_are_shares_of_what_is_trained_on(vocabulary):
    """Of documents as they are written, whatever the formats leave out or add, also where rows are few."""
    spoken, few = speech_rows(200), speech_rows(7, seed=1)
    ids = vocabulary.encode_text(" ".join(SENTENCES)).astype(np.uint16)
    texts = TextRows("texts", np.tile(ids, 20), np.arange(21) * len(ids), "hash")
    config = DocumentConfig(
        formats={"interleaved": 2, "asr": 1, "text": 2}, prompt_probability=0.3, corruption=0.0
    )
    sources = [Source(spoken, weight=0.7), Source(few, weight=0.1), Source(texts, weight=0.2)]
    documents = Documents(sources, vocabulary, config, seed=0)
    tokens = np.zeros(3)
    for epoch in range(200, 400):
        tokens += documents.counts(epoch).tokens_of_source
    assert tokens / tokens.sum() == pytest.approx([0.7, 0.1, 0.2], rel=0.03)
    counts = documents.counts(3)
    assert sum(counts.tokens_of_source) == sum(counts.tokens_of_format.values()) == counts.tokens
    assert sum(counts.documents_of_source) == sum(counts.documents.values())


@pytest.mark.parametrize("sizes", [(2048,), (64, 32)])
def test_text_is_never_torn_from_its_speech(text_models, sizes):
    codec = codec_info(sizes)
    vocabulary = Vocabulary.build(text_models["char"], codec, ["slt"])
    config = DocumentConfig(
        formats={name: 1.0 for name in FORMATS},
        prompt_probability=0.5,
        corruption=0.0,
        prompt_text_probability=0.5,
    )
    length = 200
    rows = speech_rows(80, codec=codec)
    rows.timed = [None] * 80  # nowhere to cut
    documents = Documents([rows], vocabulary, config, seed=0, longest=length)
    free = Documents([rows], vocabulary, config, seed=0)
    left = too_long = 0
    for epoch in range(3):
        plan, blocks = documents.plan(epoch), PackedBlocks(documents, length, epoch)
        for index in range(80):
            document, whole = documents.build(epoch, index), free.build(epoch, index)
            assert len(document) == plan.lengths[index]
            paired = {TEXT, SPEECH} <= set(document.modality.tolist())
            if len(document) > length:
                assert not paired  # its pieces may be anywhere
            if plan.formats[index] != free.plan(epoch).formats[index]:
                assert documents.format_names[plan.formats[index]] == "speech" and len(whole) > length
                too_long += 1
            elif len(whole) <= length:
                assert equal(document, whole)  # a document that fits is what it was
            left += paired
        assert blocks.plan.cut_documents == (plan.lengths > length).sum()
    assert left > 10 and too_long > 20 and not free.counts(0).too_long


def test_a_format_that_no_row_can_become_is_an_error(vocabulary):
    rows = speech_rows(40)
    rows.timed = [None] * 40
    mixed = only("tts", DocumentConfig(corruption=0.0))
    config = replace(mixed, formats={"tts": 1.0, "interleaved": 1.0})
    documents = Documents([rows], vocabulary, config, seed=0, longest=1024)
    drawn = documents.counts(0).drawn["interleaved"]
    with pytest.raises(
        UserError,
        match=rf"interleaved, but no row .* of {drawn} drawn, {drawn} became tts \({drawn} lack .*words",
    ):
        check_formats(documents, documents.counts(0))
    with pytest.raises(
        UserError,
        match=r"tts, but no row .* 40 became speech \(40 are longer than a block \(batch\.length 60",
    ):
        short = Documents([rows], vocabulary, mixed, seed=0, longest=60)
        check_formats(short, short.counts(0))

    rows.timed = speech_rows(40).timed[:20] + [None] * 20
    documents = Documents([rows], vocabulary, config, seed=0, longest=1024)
    check_formats(documents, documents.counts(0))
    lines, values = report_epoch(
        PackedBlocks(documents, 1024, 0), documents.counts(0), ["rows"], [1.0], 10_000
    )
    made = values["data/made/interleaved"]
    assert 0 < made < values["data/drawn/interleaved"] == drawn
    assert f"format interleaved: {drawn} drawn, {made} made" in "\n".join(lines)
    assert f"{drawn - made} became tts ({drawn - made} lack text and speech and words" in "\n".join(lines)
    assert values["data/source_share/rows"] == 1 and values["data/fill"] > 0.8
    blocks = len(PackedBlocks(documents, 1024, 0))
    assert values["data/epochs/rows"] == pytest.approx(10_000 / (blocks * 1024))


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 50)), min_size=1, max_size=4), st.integers(0, 99)
)
def test_rows_come_equally_often(sources, seed):
    sizes, counts = map(list, zip(*sources, strict=True))
    seen = Counter()
    starts = np.cumsum([0, *sizes])
    for epoch in range(4):
        order = rows_of_epoch(seed, epoch, sizes, counts)
        pairs = list(zip(order.rows.tolist(), order.repeats.tolist(), strict=True))
        assert len(set(pairs)) == len(pairs) == sum(counts)  # so a row's documents in an epoch all differ
        seen.update(order.rows.tolist())
        for start, size, count in zip(starts[:-1], sizes, counts, strict=True):
            times = [seen[row] for row in range(start, start + size)]
            assert sum(times) == count * (epoch + 1) and max(times) - min(times) <= 1


def test_a_row_that_comes_again_looks_different(vocabulary):
    documents = Documents(
        [Source(speech_rows(3), weight=9.0), Source(speech_rows(30, seed=1), weight=1.0)],
        vocabulary,
        only("speech", DocumentConfig()),
        seed=0,
    )
    plan = documents.plan(0)
    built = [documents.build(0, int(i)).input_ids.tolist() for i in np.flatnonzero(plan.rows == 0)]
    assert len(built) > 5
    assert all(a != b for i, a in enumerate(built) for b in built[:i])


# From a file


def test_documents_of_a_token_dataset_on_disk(vocabulary, tmp_path):
    from data import TokenDataset
    from data.tokenization import TokenRow, parquet_bytes

    rows = speech_rows(40)
    rows.timed = [[(w, float(np.float32(s)), float(np.float32(e))) for w, s, e in row] for row in rows.timed]
    rows.texts[3] = rows.timed[4] = rows.speakers[5] = None
    columns = zip(rows.streams, rows.texts, rows.speakers, rows.timed, strict=True)
    written = [
        TokenRow(f"row {i}", codes, len(codes) / 24, text, speaker, "en", words)
        for i, (codes, text, speaker, words) in enumerate(columns)
    ]
    (tmp_path / "rows.parquet").write_bytes(parquet_bytes(written, rows.info))
    dataset = TokenDataset.open(tmp_path / "rows.parquet")
    on_disk = Documents([dataset], vocabulary, EVERYTHING, seed=0)
    in_memory = Documents([rows], vocabulary, EVERYTHING, seed=0)
    assert on_disk.counts(0) == in_memory.counts(0)
    assert all(equal(on_disk.build(0, index), in_memory.build(0, index)) for index in range(40))


# Errors


def test_errors_say_what_to_do(vocabulary):
    rows = speech_rows(3)
    with pytest.raises(UserError, match=r"'song'.*speech, text, tts, asr, aligned"):
        Documents([rows], vocabulary, replace(PLAIN, formats={"song": 1.0}), seed=0)
    with pytest.raises(UserError, match=r"in memory .*\(f{16}\).*\(0123456789abcdef\)"):
        Documents([speech_rows(3, codec=codec_info(fingerprint="f" * 16))], vocabulary, PLAIN, seed=0)
    with pytest.raises(UserError, match="nothing to make a document of"):
        Documents([], vocabulary, PLAIN, seed=0)
    with pytest.raises(UserError, match="every dataset a weight"):
        Documents([Source(rows, weight=1.0), Source(rows)], vocabulary, PLAIN, seed=0)
    with pytest.raises(UserError, match="weights"):
        rows_per_epoch([1, 1], [1, 1], [0.0, 0.0])
    for wrong in ({"formats": {}}, {"formats": {"tts": -1.0}}, {"corruption": 1.5}, {"min_words": 0}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            DocumentConfig(**wrong)
    with pytest.raises(UserError, match="max_words"):
        DocumentConfig(min_words=5)
    with pytest.raises(UserError, match="text_loss_weight"):
        DocumentConfig(text_loss_weight=-1.0)


def test_sizes_of_a_large_dataset_are_read_once(vocabulary, tmp_path, monkeypatch):
    from slm.documents import rows as measure

    monkeypatch.setenv("CODEC_SLM_CACHE", str(tmp_path))
    monkeypatch.setattr(measure, "_LARGE", 10)
    rows = speech_rows(30)
    in_memory = Documents(
        [rows], vocabulary, replace(EVERYTHING, formats={"aligned": 1, "interleaved": 1}), 0
    )
    rows.content_hash = "a hash"
    made = Documents([rows], vocabulary, in_memory.config, 0)
    with monkeypatch.context() as patched:
        patched.setattr(measure, "_read", None)
        again = Documents([rows], vocabulary, in_memory.config, 0)
        with pytest.raises(TypeError):  # other formats need to know other things
            Documents([rows], vocabulary, only("tts"), 0)
    for documents in (made, again):
        assert documents.lengths(0).tolist() == in_memory.lengths(0).tolist()
        assert all(equal(documents.build(0, i), in_memory.build(0, i)) for i in range(30))
