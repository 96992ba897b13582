"""Text goes through a text tokenizer unchanged, whatever it is."""

from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.foundation import UserError
from data.text_tokenizer import train_text_tokenizer

TEXTS = [
    f"The {adjective} {noun} number {n}, said Anna: “don't {verb}!”"
    for n, (adjective, noun, verb) in enumerate(
        (a, b, c)
        for a in ("old", "new", "green", "kühl")
        for b in ("house", "river", "train", "  gap")
        for c in ("walk", "wait", "worry", "laugh")
    )
]
KINDS = {"char": None, "bpe": 400, "unigram": 330}


@pytest.fixture(scope="module")
def processors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("models")
    return {
        kind: sentencepiece.SentencePieceProcessor(
            model_file=str(train_text_tokenizer(TEXTS, folder / f"{kind}.model", size, kind))  # type: ignore[arg-type]
        )
        for kind, size in KINDS.items()
    }


@settings(max_examples=200)
# U+2581 is how SentencePiece writes a space: an encoder has to spell it in bytes, which is the vocabulary's
# work.
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581")))
def test_round_trip(processors: dict[str, Any], text: str) -> None:
    for processor in processors.values():
        assert processor.decode(processor.encode(text)) == text


def test_what_the_text_has_needs_no_bytes(processors: dict[str, Any]) -> None:
    for kind, processor in processors.items():
        ids = processor.encode(TEXTS[5])
        assert not any(processor.is_byte(token) or processor.is_unknown(token) for token in ids)
        assert len(ids) == len(TEXTS[5]) if kind == "char" else len(ids) < len(TEXTS[5])
        assert (
            processor.is_unknown(0) and processor.bos_id() == processor.eos_id() == processor.pad_id() == -1
        )


def test_the_same_texts_give_the_same_model(tmp_path: Path) -> None:
    for kind, size in KINDS.items():
        one, other = (
            train_text_tokenizer(TEXTS, tmp_path / name, size, kind).read_bytes()  # type: ignore[arg-type]
            for name in ("one.model", "other.model")
        )
        assert one == other


def test_impossible_wishes_are_refused(tmp_path: Path) -> None:
    for texts, size, kind, words in [
        ([], None, "char", "no text"),
        (TEXTS, None, "bpe", "needs a vocab_size"),
        (TEXTS, 200, "char", "257 pieces"),
        (TEXTS, 270, "bpe", "different characters"),
        (TEXTS, 400, "words", "unknown kind"),
    ]:
        with pytest.raises(UserError, match=words):
            train_text_tokenizer(texts, tmp_path / "x.model", size, kind)  # type: ignore[arg-type]
    assert not (tmp_path / "x.model").exists()
