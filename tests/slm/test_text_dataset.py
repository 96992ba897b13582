import json
from dataclasses import replace

import numpy as np
import pytest

from codec.foundation import UserError
from slm.documents.config import DocumentConfig, TextDatasetConfig
from slm.documents.documents import Documents
from slm.documents.rows import Source, TextRows
from slm.documents.text_dataset import open_texts
from slm.packing.blocks import PackedBlocks
from slm.vocabulary import Vocabulary
from tests.slm.token_rows import SENTENCES, codec_info, speech_rows, train_text_model

PLAIN = DocumentConfig(corruption=0.0, voice_tag_probability=0.0)
TEXTS = [*SENTENCES, "", "A " * 700 + "▁ and <|eos|> are text.", "Ünïcode 中文"]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> Vocabulary:
    model = train_text_model(tmp_path_factory.mktemp("text model"), "char")
    return Vocabulary.build(model, codec_info((64,)), ["slt"])


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CODEC_SLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"body": text}) + "\n" for text in TEXTS))
    return path


def texts_of(rows: TextRows, vocabulary: Vocabulary) -> list[str]:
    texts, ids = [], []
    for row in range(len(rows)):
        ids += rows.ids(row).tolist()
        if not rows.continues[row]:
            texts.append(vocabulary.decode_text(ids))
            ids = []
    return texts


@pytest.mark.parametrize("longest", [None, 5, 64, 10_000])
@pytest.mark.parametrize("streaming", [False, True])
def test_texts_come_back_whatever_they_are_cut_into(file, vocabulary, longest, streaming):
    rows = open_texts(TextDatasetConfig(str(file), column="body", streaming=streaming), vocabulary, longest)
    assert texts_of(rows, vocabulary) == [text for text in TEXTS if text]
    assert rows.lengths.tolist() == [len(rows.ids(row)) for row in range(len(rows))]
    assert longest is None or rows.lengths.max() <= longest
    assert (rows.lengths > 0).all()


def test_a_dataset_is_tokenized_once(file, vocabulary, own_cache, monkeypatch):
    config = TextDatasetConfig(str(file), column="body")
    first = open_texts(config, vocabulary)
    facts = json.loads(next(own_cache.glob("texts/*/facts.json")).read_text())
    assert facts["texts"] == len(TEXTS) - 1 and facts["empty_texts"] == 1
    assert facts["tokens"] == int(first.lengths.sum()) and facts["content_hash"] == first.content_hash
    other_voices = Vocabulary.for_codec(vocabulary, codec_info((32, 8)), ["a", "b"])
    with monkeypatch.context() as patched:
        patched.setattr(Vocabulary, "encode_texts", None)
        again = open_texts(config, other_voices, longest=100)  # voices, codes and blocks change nothing
    assert again.content_hash == first.content_hash
    file.write_text(json.dumps({"body": "other"}) + "\n")
    assert texts_of(open_texts(config, vocabulary), vocabulary) == ["other"]


def test_a_saved_dataset_and_a_budget(tmp_path, vocabulary):
    import datasets

    saved = datasets.DatasetDict({"dev": datasets.Dataset.from_dict({"text": SENTENCES})})
    saved.save_to_disk(tmp_path / "saved")
    config = TextDatasetConfig(str(tmp_path / "saved"), split="dev")
    whole = open_texts(config, vocabulary)
    assert texts_of(whole, vocabulary) == SENTENCES
    budget = int(whole.lengths[:4].sum()) + 3
    assert texts_of(open_texts(replace(config, max_tokens=budget), vocabulary), vocabulary) == SENTENCES[:4]


def test_errors_name_the_dataset(tmp_path, file, vocabulary):
    for wrong, message in (
        ({"column": "text"}, r"texts\.jsonl: has no column 'text' .*body"),
        ({"split": "test", "path": str(tmp_path / "nothing")}, "nothing: cannot be opened"),
        ({"path": str(tmp_path / "a.pdf")}, r"a\.pdf: not one of \.txt"),
    ):
        (tmp_path / "a.pdf").touch()
        config = replace(TextDatasetConfig(str(file), column="body"), **wrong)
        with pytest.raises(UserError, match=message):
            open_texts(config, vocabulary)
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    with pytest.raises(UserError, match="no text in column text"):
        open_texts(TextDatasetConfig(str(empty)), vocabulary)


def test_text_and_speech_in_one_mixture(file, vocabulary):
    """Every token of a text is in one block of an epoch, in a document that says what it is."""
    length = 128
    texts = open_texts(TextDatasetConfig(str(file), column="body"), vocabulary, longest=length - 2)
    speech = speech_rows(20, codec=codec_info((64,)))
    config = replace(PLAIN, formats={"speech": 0.5, "tts": 0.5})
    documents = Documents([speech, texts], vocabulary, config, seed=0)
    assert documents.counts(0).documents["text"] == len(texts)
    blocks = PackedBlocks(documents, length, epoch=0)
    found = []
    for index in range(len(blocks)):
        block = blocks[index]
        starts = np.flatnonzero(block["position_ids"].numpy() == 0)
        for piece in np.split(block["input_ids"].numpy(), starts[1:]):
            if piece[0] == vocabulary.text_id and vocabulary.speech_id not in piece:
                found.append(tuple(piece[1:].tolist()))
    rows = []
    for row in range(len(texts)):
        end = [] if texts.continues[row] else [vocabulary.eos_id]
        rows.append((*texts.ids(row).tolist(), *end))
    # What is cut of a long `tts` document may begin with text alone, too; it has no end.
    assert all(row in found for row in rows) and len(rows) > 12
    assert blocks.plan.cut_documents == sum(documents.lengths(0) > length)
    assert all(len(documents.build(0, i)) == n for i, n in enumerate(documents.lengths(0).tolist()))

    mixed = Documents([Source(speech, 1.0), Source(texts, 3.0)], vocabulary, config, seed=0)
    plan = mixed.plan(0)
    tokens = (mixed.table.text + mixed.table.speech)[plan.rows]
    assert abs(tokens[plan.rows >= 20].sum() / tokens.sum() - 0.75) < 0.05
