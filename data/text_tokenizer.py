"""SentencePiece models that give back exactly the text they were given, whatever it is."""

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import sentencepiece

from codec.foundation import UserError, local_path, write_bytes
from data.config import TokenizerKind

_BYTES = 256
_LONGEST_TEXT = 2**20  # bytes; by default SentencePiece skips texts longer than 4,192
# SentencePiece writes a space inside a piece like this. In a text it is an ordinary character; no piece may learn it.
_SPACE = "\u2581"


def train_text_tokenizer(
    texts: Iterable[str],
    output: str | os.PathLike[str],
    vocab_size: int | None = None,
    kind: TokenizerKind = "char",
) -> Path:
    """Train a SentencePiece model on texts and write it to `output` (a `.model` file).

    Text round-trips exactly: nothing is normalised, no space is added or removed, and characters that the texts lack
    are spelled in bytes. `vocab_size` counts the 256 bytes and `<unk>`; without it, a char model takes every character.
    The same texts give the same model.

    Raises UserError when there is no text, or too little of it for the vocabulary.
    """
    if kind not in get_args(TokenizerKind):
        raise UserError(f"unknown kind of text tokenizer {kind!r}: choose char, bpe or unigram")
    sentences = [part for text in texts for part in text.split(_SPACE) if part.strip()]
    if not sentences:
        raise UserError("there is no text to train a tokenizer on")
    characters = len(set("".join(sentences)))
    if vocab_size is None:
        if kind != "char":
            raise UserError(f"a {kind} tokenizer needs a vocab_size, such as 1000")
        vocab_size = characters + _BYTES + 1
    if vocab_size <= _BYTES + 1:
        raise UserError(
            f"vocab_size is {vocab_size}: 257 pieces are bytes and <unk>, the text's own come on top"
        )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type=kind,
            vocab_size=vocab_size,
            hard_vocab_limit=False,  # a small corpus may have fewer pieces than asked for
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            byte_fallback=True,
            character_coverage=1.0,
            max_sentence_length=_LONGEST_TEXT,
            num_threads=1,  # the order of sums decides ties
            unk_id=0,
            bos_id=-1,  # documents have control tokens of their own
            eos_id=-1,
            pad_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f"the text tokenizer cannot be trained ({reason}): {len(sentences):,} texts have {characters:,} "
            f"different characters; try another vocab_size than {vocab_size}, or kind char"
        ) from None
    output = local_path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(output, model.getvalue())
    return output
