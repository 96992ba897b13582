"""Bits of held-out speech in a study: of whole recordings, and of the same ones for every tokenizer."""

from math import log
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from codec.foundation import write_bytes
from data import TokenDataset
from data.tokenization import TokenRow, parquet_bytes
from recipes.study.language_model import predict
from recipes.study.results import Comparison, Result
from slm import SpeechLM
from slm.documents.config import DocumentConfig
from slm.evaluation.cross_modal import cross_modal_rows
from slm.evaluation.pairs import stream_likelihoods
from slm.models.build import build_model
from slm.models.checkpoint import SpeechCapabilities, save_checkpoint
from slm.models.config import ModelConfig
from slm.vocabulary import Vocabulary
from tests.slm.token_rows import codec_info, train_text_model

LENGTHS = [30, 70, 110, 20]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Held-out rows, the last without a text, and an untrained language model that reads 90 tokens."""
    folder = tmp_path_factory.mktemp("prediction")
    info = codec_info((64,))
    random = np.random.default_rng(0)
    rows = [
        TokenRow(
            f"r{number}",
            random.integers(0, 64, length).astype(np.uint16),
            length / 24,
            "it rains" if number < 3 else None,
        )
        for number, length in enumerate(LENGTHS)
    ]
    write_bytes(folder / "tokens.parquet", parquet_bytes(rows, info))
    vocabulary = Vocabulary.build(train_text_model(folder, "char"), info, [], None, "a codec")
    shape = ModelConfig(layers=1, hidden_size=32, head_dim=16, max_positions=90, speech_embeddings="random")
    model = build_model(shape, vocabulary, seed=0)
    save_checkpoint(folder / "model", model, vocabulary, SpeechCapabilities(["tts", "speech"]))
    return folder


def test_recordings_are_read_whole_and_those_that_do_not_fit_are_named(folder: Path) -> None:
    documents = DocumentConfig(formats={"speech": 0.5, "tts": 0.5}, corruption=0.5)
    told = predict(folder / "model", folder / "tokens.parquet", documents, 64, "cpu")
    assert told["ids"] == ["r0", "r1", "r2", "r3"] and told["positions"] == 90
    assert told["seconds"] == pytest.approx([length / 24 for length in LENGTHS])
    alone, read = told["views"]["alone"], told["views"]["read"]
    speaker = SpeechLM.from_pretrained(folder / "model")
    rows = TokenDataset.open(folder / "tokens.parquet")
    kept = [0, 1, 3]  # the second is longer than a training block of 64, and read in one piece all the same
    expected = stream_likelihoods(speaker.model, speaker.vocabulary, [rows.codes(row) for row in kept])
    assert [alone["bits"][row] for row in kept] == pytest.approx([-e.nats / log(2) for e in expected])
    assert alone["bits"][2] is None and alone["trained_on"] and read["trained_on"]
    assert (alone["too_long"], alone["without_text"], alone["beyond_block"]) == (1, 0, 1)
    # a row without text is not read as speech alone and counted among those that have one
    given = cross_modal_rows(speaker, rows, [0, 1])
    assert read["bits"][:2] == pytest.approx([row.nats["speech after its text"] / log(2) for row in given])
    assert read["bits"][2:] == [None, None] and (read["too_long"], read["without_text"]) == (1, 1)


def tokenizer(name: str, alone: dict[str, float | None], read: dict[str, float | None]) -> Result:
    """What a study knows of one: recordings of 2 s each, coded as 20 tokens, 5 bits by any n-gram."""
    ids = list(alone)

    def view(bits: dict[str, float | None]) -> dict[str, Any]:
        missing = sum(value is None for value in bits.values())
        return {
            "document": "", "bits": list(bits.values()), "too_long": missing, "without_text": 0, "beyond_block": 0,
            "trained_on": True,
        }  # fmt: skip

    codes = {
        "held_out": {"ids": ids, "tokens": [20] * len(ids)},
        "ngrams": [{"order": order, "bits": [5.0 * order] * len(ids)} for order in (1, 2, 3)],
    }
    prediction = {
        "ids": ids, "seconds": [2.0] * len(ids), "positions": 64,
        "views": {"alone": view(alone), "read": view(read)},
    }  # fmt: skip
    cells = {"codes": codes, "prediction": prediction, "reconstruction": {}, "language_model": {}}
    outcome = SimpleNamespace(
        tokenizer=SimpleNamespace(name=name, info=None),
        speech=None,
        **{key: SimpleNamespace(result=value) for key, value in cells.items()},
    )
    return Result(outcome, Path())  # type: ignore[arg-type]


def test_all_tokenizers_are_measured_on_the_same_recordings() -> None:
    everything = {"a": 100.0, "b": 200.0, "c": 900.0}
    short = tokenizer("short", dict(everything), {"a": 80.0, "b": 150.0, "c": 700.0})
    long = tokenizer("long", {"a": 300.0, "b": 500.0, "c": None}, {"a": 200.0, "b": None, "c": None})
    found = Comparison([short, long])
    assert found.alone.ids == ["a", "b"] and found.alone.seconds == 4.0
    assert found.of("short").alone.value == pytest.approx(
        300 / 4
    )  # not 1,200 / 6: c is too long for the other
    assert found.of("long").alone.value == pytest.approx(800 / 4)
    assert found.of("short").seconds == found.of("long").seconds == 4.0
    assert found.of("short").ngrams == pytest.approx([10 / 4, 20 / 4, 30 / 4])
    assert found.of("short").bits_a_token == pytest.approx(300 / 40)
    assert found.read.ids == ["a"]
    assert found.of("short").read.value == pytest.approx(80 / 2)
    assert found.of("short").saved.value == pytest.approx(20 / 2)  # over a alone, as the column beside it
    assert any(
        "long: 1 of 3 held-out recordings do not fit into the 64 positions" in n for n in found.notes()
    )
    assert any("left out for all tokenizers" in note for note in found.notes())


def test_a_tokenizer_that_fits_nowhere_takes_nothing_from_the_others() -> None:
    short = tokenizer("short", {"a": 100.0, "b": 200.0}, {"a": None, "b": None})
    found = Comparison([short, tokenizer("huge", {"a": None, "b": None}, {"a": None, "b": None})])
    assert found.alone.ids == ["a", "b"] and found.alone.compared == ["short"]
    assert found.of("short").alone.value == 75.0 and np.isnan(found.of("huge").alone.value)
    assert found.of("huge").seconds == 0.0 and found.of("huge").ngrams == pytest.approx([2.5, 5.0, 7.5])
    assert any("huge: 2 of 2" in note and "nothing is measured" in note for note in found.notes())
    assert np.isnan(found.of("short").read.value) and np.isnan(found.of("short").saved.value)


def test_what_a_text_saves_may_be_nothing() -> None:
    for sign in (1.0, -1.0):
        read = {"a": 100.0 - sign, "b": 100.0 - 9 * sign, "c": 100.0 - 2 * sign}
        saved = Comparison([tokenizer("one", dict.fromkeys("abc", 100.0), read)]).of("one").saved
        assert (
            saved.value == pytest.approx(sign * 2) and saved.low < 0 < saved.high
        )  # of three that differ so much
