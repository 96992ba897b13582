"""Perplexity of transcripts: what Hugging Face's own loss says, and what a model that has learnt them finds."""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from codec.foundation import UserError
from slm.evaluation.text_lm import TextLM, perplexity
from tests.slm.text_lm import save_text_lm
from tests.slm.token_rows import SENTENCES


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_text_lm(tmp_path_factory.mktemp("a text model"), steps=60)


def test_likelihood_is_that_of_transformers(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = TextLM(str(directory))
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(directory),
        AutoTokenizer.from_pretrained(directory),
    )
    found = lm.likelihood(SENTENCES[0])
    ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer.encode(SENTENCES[0])]])
    with torch.no_grad():
        loss = float(model(input_ids=ids, labels=ids).loss)
    assert found.tokens == ids.shape[1] - 1 and found.characters == len(SENTENCES[0])
    assert found.nats == pytest.approx(loss * found.tokens, rel=1e-5)
    assert perplexity([[found]]).value == pytest.approx(math.exp(loss), rel=1e-5)
    assert lm.likelihood("").tokens == 0 and math.isnan(perplexity([[]]).value)
    # longer than it reads: piece after piece, each behind a beginning
    monkeypatch.setattr(lm, "_longest", 11)
    pieces = [ids[0, 1:][start : start + 10] for start in range(0, ids.shape[1] - 1, 10)]
    nats = 0.0
    for piece in pieces:
        part = torch.cat([ids[0, :1], piece])[None]
        with torch.no_grad():
            nats += float(model(input_ids=part, labels=part).loss) * len(piece)
    assert lm.likelihood(SENTENCES[0]).nats == pytest.approx(nats, rel=1e-5)


def test_what_was_learnt_is_less_perplexing(directory: Path) -> None:
    lm = TextLM(str(directory))
    known = perplexity([[lm.likelihood(text)] for text in SENTENCES])
    mixed = perplexity([[lm.likelihood("".join(reversed(text)))] for text in SENTENCES])
    assert known.low <= known.value <= known.high < mixed.low


def test_what_is_no_language_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot load the text language model"):
        TextLM(str(tmp_path))
