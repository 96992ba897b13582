"""Voices of a codec with voice vectors: from the dataset's column through the model to the sound."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from codec import CodecInfo
from data.tokenization import TokenRow, parquet_bytes
from slm.generation.planning import Prompt
from slm.generation.speech_lm import SpeechLM
from slm.training.config import DatasetConfig
from slm.training.data import open_training_data
from slm.vocabulary import Vocabulary
from tests.codec.small_codecs import speech_like
from tests.codec.test_voice import voiced_codec
from tests.slm.test_generation import speech_lm
from tests.slm.token_rows import train_text_model
from tests.slm.toy_training import toy_config

CODEC = voiced_codec()
VOICES = {"slt": np.full(6, 0.5, np.float32), "rms": np.linspace(-1, 1, 6, dtype=np.float32)}


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> SpeechLM:
    text_model = train_text_model(tmp_path_factory.mktemp("text"), "char")
    vocabulary = Vocabulary.build(text_model, CodecInfo.of(CODEC), list(VOICES))
    vocabulary.voice_vectors = {name: vector.tolist() for name, vector in VOICES.items()}
    made = speech_lm(vocabulary, ("tts", "asr"))
    made.codec = CODEC
    return made


def decoded(codes: torch.Tensor, voice: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return CODEC.decode(codes[None], voice=torch.from_numpy(voice)[None]).audio_values[0, 0]


def test_a_voice_is_spoken_with_its_vector_and_a_stranger_with_theirs(speaker: SpeechLM) -> None:
    for voice in (None, "slt", "rms"):
        spoken = speaker.speak("Yes.", voice)
        assert torch.allclose(spoken.audio, decoded(spoken.codes, VOICES[voice or "slt"]), atol=1e-5)
        streamed = torch.cat([chunk.audio for chunk in speaker.stream("Yes.", voice)])
        assert torch.allclose(streamed, spoken.audio, atol=1e-4)
    stranger = speaker.prompt(speech_like(1, 36_000)[0], 24_000)
    assert stranger.voice is not None and not speaker.capabilities.prompts
    spoken = speaker.speak("Yes.", prompt=stranger)
    assert torch.equal(spoken.codes, speaker.speak("Yes.", "slt").codes)
    assert torch.allclose(spoken.audio, decoded(spoken.codes, stranger.voice), atol=1e-5)
    going_on = speaker.continue_speech(stranger, seconds=0.5)
    assert torch.allclose(going_on.audio, decoded(going_on.codes, stranger.voice), atol=1e-5)
    with pytest.raises(Exception, match="does not clone strangers"):
        speaker.speak("Yes.", prompt=Prompt(stranger.codes))  # without a vector


def test_vectors_stay_with_the_vocabulary(speaker: SpeechLM, tmp_path: Path) -> None:
    speaker.vocabulary.save_pretrained(tmp_path)
    for again in (Vocabulary.from_pretrained(tmp_path), pickle.loads(pickle.dumps(speaker.vocabulary))):
        for name, vector in VOICES.items():
            assert np.allclose(again.voice_vector(name), vector)
        assert again.voice_vector("nobody") is None and again.voice_vector(None) is None


def test_training_takes_the_mean_of_each_speakers_vectors(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    info = copy.copy(CodecInfo.of(CODEC))
    vectors = random.normal(size=(6, 6)).astype(np.float16)
    rows = [
        TokenRow(
            f"row {number}",
            random.integers(0, 160, 48).astype(np.uint16),
            2.0,
            "will we ever forget it",
            ("slt", "rms", None)[number % 3],
            voice=vectors[number],
        )
        for number in range(6)
    ]
    (tmp_path / "train.parquet").write_bytes(parquet_bytes(rows, info))
    config = toy_config(
        tmp_path / "run",
        datasets=[DatasetConfig(str(tmp_path / "train.parquet"))],
        text_model=str(train_text_model(tmp_path, "char")),
    )
    vocabulary = open_training_data(config).vocabulary
    assert set(vocabulary.voice_vectors) == {"slt", "rms"}
    assert np.allclose(vocabulary.voice_vector("slt"), vectors[[0, 3]].mean(axis=0), atol=2e-3)
    assert np.allclose(vocabulary.voice_vector("rms"), vectors[[1, 4]].mean(axis=0), atol=2e-3)
