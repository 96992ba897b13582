import dataclasses

import pytest
import soundfile
import torch

from codec import CodecInfo, load_codec
from slm.models.build import build_model
from slm.models.checkpoint import SpeechCapabilities
from slm.models.config import ModelConfig
from slm.training.config import SamplesConfig
from slm.training.data import TrainingData
from slm.training.loop import train_slm
from slm.training.loss import PER_DOCUMENT
from slm.training.samples import SampleMaker, write_samples
from slm.vocabulary import Vocabulary
from tests.slm.token_rows import speech_rows, train_text_model
from tests.slm.toy_training import CODEC, toy_config


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Rows of the bundled codec, which can be heard."""
    folder = tmp_path_factory.mktemp("samples")
    info = CodecInfo.of(load_codec("hh-codec-tiny"))
    vocabulary = Vocabulary.build(train_text_model(folder, "char"), info, ["slt"])
    config = toy_config(folder / "run", max_steps=2, validate_every=2, validation_blocks=1)
    rows = speech_rows(8, codec=info)
    return TrainingData(config, [rows], ["hash"], {"rows": speech_rows(3, seed=1, codec=info)}, vocabulary)


HABITS = SpeechCapabilities(["tts", "speech"], seconds_per_character=[0.001, 0.002, 0.004])


def test_a_model_speaks_and_is_left_as_it_was(data, tmp_path):
    model = build_model(
        ModelConfig(layers=1, speech_embeddings="random"), data.vocabulary, 0, attention=PER_DOCUMENT
    )
    model.train()
    maker = SampleMaker(SamplesConfig(count=1, prompt_seconds=0.5, seconds=0.5), data, HABITS)
    state = torch.get_rng_state()
    samples = maker.make(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training and model.config._attn_implementation == PER_DOCUMENT
    assert [sample.name for sample in samples] == ["read-0", "continued-0"]
    assert samples[1].sampling_rate == 24_000 and 12_000 < len(samples[1].audio) <= 24_000
    again = maker.make(model)
    assert all(torch.equal(one.audio, other.audio) for one, other in zip(samples, again, strict=True))
    paths = write_samples(tmp_path / "samples", 7, samples)
    assert paths[0].name == "step-00000007-read-0.wav"
    assert soundfile.info(paths[1]).frames == len(samples[1].audio)
    assert paths[0].with_suffix(".txt").read_text().strip() == samples[0].text


def test_a_run_leaves_samples_beside_its_log(data, tmp_path):
    config = dataclasses.replace(
        data.config,
        output=str(tmp_path / "run"),
        samples=SamplesConfig(count=1, texts=["No."], prompt_seconds=0.5, seconds=0.5),
    )
    train_slm(config, dataclasses.replace(data, config=config))
    names = sorted(path.name for path in (tmp_path / "run" / "samples").glob("*.wav"))
    assert names == ["step-00000002-continued-0.wav", "step-00000002-read-0.wav"]


def test_where_nothing_can_be_heard_it_is_said_once(data, capsys):
    vocabulary = data.vocabulary.for_codec(CODEC, ["slt"])  # a codec that exists nowhere
    model = build_model(ModelConfig(layers=1, speech_embeddings="random"), vocabulary, 0)
    rows = {"rows": speech_rows(2, codec=CODEC)}
    lost = dataclasses.replace(data, vocabulary=vocabulary, validation=rows)
    maker = SampleMaker(SamplesConfig(), lost, HABITS)
    assert maker.make(model) == [] and maker.make(model) == []
    assert capsys.readouterr().err.count("no samples of speech") == 1
