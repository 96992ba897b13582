import json
import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from codec.foundation import UserError
from data.text_tokenizer import train_text_tokenizer
from slm.models.checkpoint import find_slm
from slm.vocabulary import Vocabulary, split_words
from tests.slm.token_rows import SENTENCES, codec_info, train_text_model

KINDS = ["char", "bpe", "unigram"]
VOICES = ("slt", "Jürgen 2")

# Much white space, characters that no model has seen, and the spelling of special tokens.
fragments = st.sampled_from(
    [
        *" ".join(SENTENCES).split(),
        *(" ", "  ", "\n", "\t", "é", "漢字", "😀", "\u00a0", "\u0000"),
        *("<s>", "</s>", "<unk>", "<0x41>", "0x41>", "s>", "<", ">"),
        *("<|s5|>", "<|eos|>", "<|text|>", "<|voice:slt|>", "<|reserved_0|>"),
    ]
)
texts = st.lists(fragments | st.text(max_size=4), max_size=12).map("".join)


@pytest.fixture(scope="module")
def models_by_kind(tmp_path_factory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("text models")
    return {kind: train_text_model(directory, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def vocabularies(models_by_kind) -> dict[str, Vocabulary]:
    return {kind: Vocabulary.build(path, codec_info(), VOICES) for kind, path in models_by_kind.items()}


@pytest.fixture(scope="module")
def saved(vocabularies, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("saved")
    vocabularies["bpe"].save_pretrained(directory)
    return directory


# Text


@pytest.mark.parametrize("kind", KINDS)
def test_text_ids_are_those_of_sentencepiece(kind, models_by_kind, vocabularies, tmp_path):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(models_by_kind[kind]))
    vocabularies[kind].save_pretrained(tmp_path)
    saved_tokenizer = AutoTokenizer.from_pretrained(tmp_path)

    @given(texts)
    @example("  two  spaces \n\n and\ttabs ")
    @example("<s> </s> <unk> <0x41> <0x4g>")
    @settings(max_examples=150)
    def check(text):
        text = text.replace("▁", "")  # which SentencePiece cannot tell from a space
        expected = processor.encode(text)
        assert vocabularies[kind].encode_text(text).tolist() == expected
        assert vocabularies[kind].count_text([text]).tolist() == [len(expected)]
        if "<|" not in text:
            assert saved_tokenizer.encode(text, add_special_tokens=False) == expected

    check()


@pytest.mark.parametrize("kind", KINDS)
def test_models_of_train_tokenizer_are_taken(kind, tmp_path):
    path = train_text_tokenizer(SENTENCES * 5, tmp_path / "text.model", None if kind == "char" else 360, kind)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    vocabulary = Vocabulary.build(path, codec_info())
    assert vocabulary.num_text == processor.vocab_size()
    for text in (*SENTENCES, "  two  spaces \n\n and\ttabs ", "<unk> <0x41> <s>", "漢字 😀", ""):
        assert vocabulary.encode_text(text).tolist() == processor.encode(text)
        assert vocabulary.decode_text(vocabulary.encode_text(text)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_text_comes_back_exactly_and_is_never_a_special_token(kind, vocabularies):
    vocabulary = vocabularies[kind]

    @given(texts | st.text(alphabet="▁ a<|s5>", max_size=20))
    @example("▁▁ a▁")
    @example("<|s5|><|eos|>")
    @settings(max_examples=150)
    def check(text):
        ids = vocabulary.encode_text(text)
        assert ids.dtype == np.int32
        assert all(0 <= i < vocabulary.num_text for i in ids)
        assert vocabulary.decode_text(ids) == text
        assert vocabulary.count_text([text, "a"])[0] == len(ids)
        assert vocabulary.text_bytes[ids].sum() == len(text.encode())

    check()


@given(texts)
@example(" ")
@example("")
@example("\n a\x1c b\u2003c  ")
def test_split_words_joins_to_the_text(text):
    pieces = split_words(text)
    assert "".join(pieces) == text
    if text.strip():
        assert [piece.strip() for piece in pieces] == text.split()
        assert all(piece[-1:].strip() for piece in pieces[:-1])  # white space stands before words


@pytest.mark.parametrize("kind", KINDS)
def test_words_are_the_text_ids_cut_between_words(kind, vocabularies):
    vocabulary = vocabularies[kind]

    @given(texts)
    @settings(max_examples=100)
    def check(text):
        words = vocabulary.encode_words(text)
        assert [vocabulary.decode_text(ids) for ids in words] == split_words(text)
        assert np.concatenate([*words, []]).tolist() == vocabulary.encode_text(text).tolist()

    check()


def check_many_texts(vocabulary: Vocabulary, some: list[str]) -> None:
    """All texts at once give what each gives alone."""
    tokens = vocabulary.encode_texts_and_words(some)
    parts = zip(pairwise(tokens.starts), pairwise(tokens.piece_starts), strict=True)
    for text, ((first, last), (piece, end)) in zip(some, parts, strict=True):
        ids, starts = vocabulary.encode_text_and_words(text)
        assert tokens.ids[first:last].tolist() == ids.tolist() == vocabulary.encode_text(text).tolist()
        assert (tokens.piece[piece:end] - first).tolist() == starts.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_many_texts_are_as_each_alone(kind, vocabularies):
    @given(st.lists(texts, min_size=1, max_size=5))
    @settings(max_examples=50)
    def check(some):
        check_many_texts(vocabularies[kind], some)

    check()


def test_decoding_leaves_out_what_is_no_text(vocabularies):
    vocabulary = vocabularies["bpe"]
    text_ids = vocabulary.encode_text("Will we?")
    ids = [vocabulary.voices["slt"], vocabulary.text_id, *text_ids, vocabulary.speech_start]
    assert vocabulary.decode_text(ids) == "Will we?"


# Tokens


def test_the_order_of_tokens(vocabularies, models_by_kind):
    vocabulary = vocabularies["bpe"]
    processor = sentencepiece.SentencePieceProcessor(model_file=str(models_by_kind["bpe"]))
    assert vocabulary.num_text == processor.vocab_size()
    first = vocabulary.num_text
    assert (vocabulary.text_id, vocabulary.speech_id, vocabulary.eos_id, vocabulary.pad_id) == (
        first,
        first + 1,
        first + 2,
        first + 3,
    )
    assert vocabulary.voices == {"slt": first + 4, "Jürgen 2": first + 5}
    assert (vocabulary.speech_start, vocabulary.speech_end) == (first + 6, first + 6 + 2048)
    assert len(vocabulary) % 128 == 0 and len(vocabulary) - 128 < vocabulary.speech_end <= len(vocabulary)
    assert vocabulary.voice_id("slt") == first + 4
    assert vocabulary.voice_id("rms") is None and vocabulary.voice_id(None) is None


def test_the_saved_tokenizer_knows_every_token_by_name(saved, vocabularies):
    vocabulary = vocabularies["bpe"]
    tokenizer = AutoTokenizer.from_pretrained(saved)
    assert len(tokenizer) == len(vocabulary)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (vocabulary.eos_id, vocabulary.pad_id)
    names = ["<|text|>", "<|speech|>", "<|voice:slt|>", "<|voice:Jürgen 2|>"]
    expected = [vocabulary.text_id, vocabulary.speech_id, *vocabulary.voices.values()]
    names += ["<|s0|>", "<|s2047|>", "<|reserved_0|>"]
    expected += [vocabulary.speech_start, vocabulary.speech_end - 1, vocabulary.speech_end]
    assert tokenizer.convert_tokens_to_ids(names) == expected
    assert tokenizer.encode("".join(names), add_special_tokens=False) == expected
    last = f"<|reserved_{len(vocabulary) - vocabulary.speech_end - 1}|>"
    assert tokenizer.convert_tokens_to_ids(last) == len(vocabulary) - 1
    assert tokenizer.decode(expected, skip_special_tokens=True) == ""


@pytest.mark.parametrize("bundled", [False, True])
def test_what_is_saved_asks_for_nothing_that_transformers_4_lacks(saved, bundled):
    saved = find_slm("slm-tiny") if bundled else saved
    config = json.loads((saved / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not {"extra_special_tokens", "backend", "is_local"} & config.keys()
    # llama.cpp reads texts rightly with these, and version 4's `generate` takes what its tokenizer gives.
    assert config["add_bos_token"] is False and config["add_prefix_space"] is False
    assert list(AutoTokenizer.from_pretrained(saved)("text")) == ["input_ids", "attention_mask"]
    assert PreTrainedTokenizerFast.from_pretrained(saved).eos_token == "<|eos|>"


def test_a_vocabulary_survives_saving_and_pickling(saved, vocabularies):
    original = vocabularies["bpe"]
    for copy in (Vocabulary.from_pretrained(saved), pickle.loads(pickle.dumps(original))):
        assert len(copy) == len(original)
        assert copy.codec == original.codec and copy.codec_location == "hh-codec-tiny"
        assert copy.voices == original.voices
        assert copy.speech_offsets.tolist() == original.speech_offsets.tolist()
        text = "He said: <|s5|><|eos|> ▁"
        assert copy.encode_text(text).tolist() == original.encode_text(text).tolist()
        assert copy.decode_text(copy.encode_text(text)) == text


# Codes


@pytest.mark.parametrize("max_quantizers", [None, 1, 2])
def test_codes_become_the_tokens_of_their_names(models_by_kind, tmp_path, max_quantizers):
    sizes = (64, 16, 32)
    vocabulary = Vocabulary.build(models_by_kind["char"], codec_info(sizes), max_quantizers=max_quantizers)
    vocabulary.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    used = max_quantizers or 3
    frames = np.random.default_rng(0).integers(0, sizes, size=(50, 3)).astype(np.uint16)
    names = [
        f"<|q{quantizer}_s{frame[quantizer]}|>" if quantizer else f"<|s{frame[0]}|>"
        for frame in frames
        for quantizer in range(used)
    ]
    ids = vocabulary.codes_to_ids(frames.reshape(-1))
    assert ids.dtype == np.int32
    assert ids.tolist() == tokenizer.convert_tokens_to_ids(names)
    codes = vocabulary.ids_to_codes(ids)
    assert codes.dtype == np.uint16
    assert codes.tolist() == frames[:, :used].reshape(-1).tolist()
    assert vocabulary.codes_to_ids(codes, num_quantizers=used).tolist() == ids.tolist()
    assert (ids.min(), ids.max() + 1) >= (vocabulary.speech_start, 0) and ids.max() < vocabulary.speech_end


def test_the_largest_code_of_uint16_does_not_wrap(models_by_kind):
    vocabulary = Vocabulary.build(models_by_kind["char"], codec_info((65536,)))
    ids = vocabulary.codes_to_ids(np.array([0, 65535], dtype=np.uint16))
    assert ids.tolist() == [vocabulary.speech_start, vocabulary.speech_end - 1]
    assert vocabulary.ids_to_codes(ids).tolist() == [0, 65535]


def test_only_speech_tokens_have_codes(vocabularies):
    vocabulary = vocabularies["char"]
    assert vocabulary.ids_to_codes(np.array([], dtype=np.int64)).tolist() == []
    for wrong in (vocabulary.eos_id, vocabulary.speech_start - 1, vocabulary.speech_end):
        with pytest.raises(ValueError, match="speech tokens"):
            vocabulary.ids_to_codes(np.array([vocabulary.speech_start, wrong]))


# A pretrained tokenizer


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """A byte-level BPE tokenizer with special tokens and a BOS template, as text LLMs have them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES * 5, trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|begin|>"])
    tokenizer.add_tokens([AddedToken("    ", normalized=False)])
    begin = ("<|begin|>", tokenizer.token_to_id("<|begin|>"))
    tokenizer.post_processor = processors.TemplateProcessing("<|begin|> $A", special_tokens=[begin])
    directory = tmp_path_factory.mktemp("pretrained")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", bos_token="<|begin|>"
    ).save_pretrained(directory)
    return directory


def test_a_pretrained_tokenizer_is_extended(pretrained, tmp_path):
    base = AutoTokenizer.from_pretrained(pretrained)
    vocabulary = Vocabulary.build(pretrained, codec_info(), VOICES)
    assert vocabulary.num_text == len(base)
    vocabulary.save_pretrained(tmp_path)
    reloaded = Vocabulary.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == len(vocabulary) and tokenizer.eos_token_id == vocabulary.eos_id

    @given(texts.filter(lambda text: "<|" not in text))
    @settings(max_examples=100)
    def ordinary(text):
        expected = base.encode(text, add_special_tokens=False)
        assert reloaded.encode_text(text).tolist() == expected
        assert tokenizer.encode(text, add_special_tokens=False) == expected
        assert np.concatenate([*reloaded.encode_words(text), []]).tolist() == expected
        check_many_texts(reloaded, ["Well, it is", text, "so."])

    @given(texts)
    @example("<|endoftext|>")
    @settings(max_examples=100)
    def any_text(text):
        ids = reloaded.encode_text(text)
        assert not {base.eos_token_id, base.bos_token_id} & set(ids.tolist())
        assert all(i < vocabulary.num_text for i in ids)
        assert reloaded.decode_text(ids) == text
        assert reloaded.text_bytes[ids].sum() == len(text.encode())

    ordinary()
    any_text()


# Errors


def test_errors_say_what_to_do(models_by_kind, pretrained, tmp_path):
    info = codec_info()
    with pytest.raises(UserError, match=r"missing\.model.*train-tokenizer"):
        Vocabulary.build(tmp_path / "missing.model", info)
    (tmp_path / "text.model").write_text("not a model\n" * 10)
    with pytest.raises(UserError, match=r"text\.model.*train-tokenizer"):
        Vocabulary.build(tmp_path / "text.model", info)
    (tmp_path / "empty.model").write_bytes(b"")
    with pytest.raises(UserError, match=r"empty\.model.*train-tokenizer"):
        Vocabulary.build(tmp_path / "empty.model", info)
    with pytest.raises(UserError, match="no-such-directory"):
        Vocabulary.build(tmp_path / "no-such-directory", info)
    for voices in (["a", "a"], [""], ["a|>b"], "slt"):
        with pytest.raises(UserError, match="voice"):
            Vocabulary.build(models_by_kind["char"], info, voices)
    Vocabulary.build(pretrained, info).save_pretrained(tmp_path / "ours")
    with pytest.raises(UserError, match=r"<\|text\|>"):
        Vocabulary.build(tmp_path / "ours", info)
    with pytest.raises(UserError, match=r"pretrained.*speech\.json"):
        Vocabulary.from_pretrained(pretrained)
    with pytest.raises(UserError, match="Unicode"):
        Vocabulary.build(models_by_kind["char"], info).encode_text("\udce4")


def test_a_model_that_changes_text_is_refused(tmp_path):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 5), model_prefix=f"{tmp_path}/usual", vocab_size=100, minloglevel=2
    )
    faults = r"usual\.model: .*normalises.*space in front.*byte fallback.*train-tokenizer"
    with pytest.raises(UserError, match=faults):
        Vocabulary.build(tmp_path / "usual.model", codec_info())


def test_files_of_two_models_are_refused(saved, tmp_path, vocabularies, models_by_kind):
    Vocabulary.build(models_by_kind["bpe"], codec_info((4096,))).save_pretrained(tmp_path)
    (tmp_path / "speech.json").write_bytes((saved / "speech.json").read_bytes())
    with pytest.raises(UserError, match="same model"):
        Vocabulary.from_pretrained(tmp_path)
