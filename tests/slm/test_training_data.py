import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from codec.foundation import Schedule, UserError
from data import TokenDataset
from data.tokenization import TokenRow, parquet_bytes
from recipes.cli.main import main
from slm.documents.config import TextDatasetConfig, ValidationConfig
from slm.training.config import DatasetConfig
from slm.training.data import open_training_data, speech_capabilities
from slm.training.loop import train_slm
from tests.slm.token_rows import MemoryRows, codec_info, speech_rows, train_text_model
from tests.slm.toy_training import toy_config

CODEC = codec_info((64,))


def write_dataset(directory, splits: dict[str, MemoryRows], speaker=None):
    directory.mkdir(parents=True)
    described = {}
    for split, data in splits.items():
        rows = [
            TokenRow(
                f"{split} {row}", data.codes(row), len(data.codes(row)) / 24, data.text(row),
                speaker or data.speaker(row), "en", data.words(row),
            )
            for row in range(len(data))
        ]  # fmt: skip
        (directory / f"{split}-00000-of-00001.parquet").write_bytes(parquet_bytes(rows, data.info))
        described[split] = {"shards": 1, "rows": len(rows)}
    info = next(iter(splits.values())).info
    metadata = {"codec": info.to_dict(), "splits": described, "content_hash": f"hash of {directory.name}"}
    (directory / "metadata.json").write_text(json.dumps(metadata))
    return str(directory)


@pytest.fixture
def datasets(tmp_path):
    """One with a validation split and two speakers, one without and with a third speaker."""
    both = {"train": speech_rows(20, 0, CODEC), "validation": speech_rows(4, 1, CODEC)}
    first = write_dataset(tmp_path / "tokens/two voices", both)
    second = write_dataset(tmp_path / "tokens/one", {"train": speech_rows(8, 2, CODEC)}, speaker="awb")
    train_text_model(tmp_path, "char")
    return [DatasetConfig(first), DatasetConfig(second)]


@pytest.fixture
def codec(monkeypatch):
    """A codec of which only the codebook is known."""
    codebook = torch.randn(64, 12, generator=torch.Generator().manual_seed(0))
    config = SimpleNamespace(**CODEC.to_dict())
    fake = SimpleNamespace(config=config, effective_codebook=lambda quantizer: codebook)
    monkeypatch.setattr("slm.training.data.load_codec", lambda name: fake)
    return fake


def config_of(tmp_path, datasets, **changes):
    return toy_config(
        tmp_path / "run",
        datasets=datasets,
        text_model=str(tmp_path / "char.model"),
        codec="a codec",
        **changes,
    )


def test_what_a_config_names_is_opened(tmp_path, datasets, codec, monkeypatch):
    config = config_of(tmp_path, datasets)
    config.model.speech_embeddings = "codebook"
    data = open_training_data(config)
    assert data.vocabulary.voices.keys() == {"awb", "rms", "slt"}
    assert data.vocabulary.codec_location == "a codec"
    assert [len(rows) for rows in data.training] == [20, 8] and list(data.validation) == [datasets[0].path]
    assert data.hashes == ["hash of two voices", "hash of one"]
    assert torch.equal(data.codebooks[0], codec.effective_codebook(0))
    seconds = [
        len(rows.codes(row)) / 24 / len(rows.text(row)) for rows in data.training for row in range(len(rows))
    ]
    low, median, high = speech_capabilities(data).seconds_per_character
    assert median == pytest.approx(np.median(seconds))
    assert min(seconds) <= low < median < high <= max(seconds)
    assert speech_capabilities(data).language == "en"  # where the data does not say
    monkeypatch.setattr(TokenDataset, "language", lambda rows, row: "de-AT" if row else "en")
    assert speech_capabilities(data).language == "de"


def test_voices_can_be_named(tmp_path, datasets):
    data = open_training_data(config_of(tmp_path, datasets, voices=["awb"]))
    assert list(data.vocabulary.voices) == ["awb"] and data.codebooks is None


def test_datasets_of_two_codecs_are_refused(tmp_path, datasets):
    other = codec_info((64,), fingerprint="fedcba9876543210")
    path = write_dataset(tmp_path / "tokens/other", {"train": speech_rows(4, 0, other)})
    with pytest.raises(UserError, match=r"tokens/other.*fedcba9876543210.*0123456789abcdef"):
        open_training_data(config_of(tmp_path, [*datasets, DatasetConfig(path)]))


def test_a_codec_with_other_codes_is_refused(tmp_path, datasets, codec):
    codec.config.fingerprint = "fedcba9876543210"
    config = config_of(tmp_path, datasets)
    config.model.speech_embeddings = "codebook"
    with pytest.raises(UserError, match=r"0123456789abcdef.*fedcba9876543210"):
        open_training_data(config)


def test_a_tag_for_each_of_very_many_speakers_is_refused(tmp_path, datasets):
    rows = speech_rows(300, 0, CODEC)
    rows.speakers = [f"speaker {number}" for number in range(300)]
    path = write_dataset(tmp_path / "tokens/crowd", {"train": rows})
    with pytest.raises(UserError, match="300 speakers, too many for a tag each"):
        open_training_data(config_of(tmp_path, [DatasetConfig(path)]))


def test_the_command_trains_from_flags(tmp_path, datasets, capsys):
    flags = {
        "datasets": json.dumps([{"path": entry.path, "weight": 1} for entry in datasets]),
        "text_model": tmp_path / "char.model",
        "output": tmp_path / "run",
        "model": "{layers: 1, hidden_size: 32, head_dim: 16, speech_embeddings: random}",
        "batch": "{length: 256, blocks: 2, blocks_per_forward: 2}",
        "max_steps": 2,
    }
    arguments = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    assert main(["train-slm", *arguments]) == 0
    assert "trained 2 steps" in capsys.readouterr().out
    assert (tmp_path / "run/final/model.safetensors").is_file()
    assert main(["train-slm", *arguments, "--ema", "0.5"]) == 2
    assert "ema was 0.0, is now 0.5" in capsys.readouterr().err
    skip = ["--skip_data", "{1: 2}", "--max_steps", "3"]
    assert main(["train-slm", *arguments, *skip]) == 2
    assert "no checkpoint at step 1 or before" in capsys.readouterr().err


def test_validation_sets_have_names(tmp_path, datasets, monkeypatch):
    monkeypatch.setenv("CODEC_SLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    (tmp_path / "dev.txt").write_text("A text a line.\nAnother one.\n")
    path = datasets[0].path
    sets = {
        "two voices": ValidationConfig(path),
        "speech": ValidationConfig(path, formats={"speech": 1.0}),
        "as in training": ValidationConfig(path, split="train", formats={"tts": 1.0}),
        "language": ValidationConfig(str(tmp_path / "dev.txt"), split="train", column="text"),
    }
    texts = [TextDatasetConfig(str(tmp_path / "dev.txt"))]
    config = config_of(tmp_path, datasets, validation=sets, texts=texts)
    data = open_training_data(config)
    assert {name: len(rows) for name, rows in data.validation.items()} == {
        "two voices": 4, "speech": 4, "as in training": 20, "language": 2,
    }  # fmt: skip
    assert len(data.hashes) == 3 and data.hashes[2] == data.texts[0].content_hash
    blocks = data.validation_blocks()
    assert list(blocks) == list(sets)
    formats = {name: set(packed.documents.counts(0).drawn) for name, packed in blocks.items()}
    assert formats["speech"] == {"speech"} and formats["as in training"] == {"tts"}
    assert formats["language"] == {"text"} and len(formats["two voices"]) > 1
    assert not any(packed.documents.config.corruption for packed in blocks.values())

    trained = train_slm(config_of(tmp_path, datasets, validation=sets, texts=texts, max_steps=4))
    assert trained.finished
    line = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()][-1]
    assert {f"validation/{name}/loss" for name in sets} <= line.keys()


def test_repetition_is_limited_by_the_length_of_the_run(tmp_path, datasets):
    limited = [replace(datasets[0], max_epochs=2.0), datasets[1]]
    with pytest.raises(UserError, match="max_epochs of a dataset needs max_steps"):
        config_of(tmp_path, limited, max_steps=None, max_seconds=10.0)
    config = config_of(tmp_path, limited, max_steps=20)
    assert config.token_budget(decay=False) == 20 * 4 * 256
    parts = replace(
        config, decay_documents=config.documents, schedule=Schedule(warmup_steps=3, decay_fraction=0.25)
    )
    assert [parts.token_budget(decay) for decay in (False, True)] == [16 * 4 * 256, 4 * 4 * 256]
    data = open_training_data(parts)
    assert [source.max_epochs for source in data._sources(decay=True)] == [0.4, None]
    assert [source.max_epochs for source in data._sources(decay=False)] == [1.6, None]
