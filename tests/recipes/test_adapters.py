"""A codec of transformers in the whole pipeline, by the one flag `--codec`."""

import json
from pathlib import Path

import numpy as np
import pytest

from codec import CodecInfo, load_codec
from data import TokenDataset, read_audio
from recipes.cli.main import main
from tests.codec.small_adapters import save_small
from tests.data.conftest import write_ljspeech


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus at 22.05 kHz, and codecs."""
    folder = tmp_path_factory.mktemp("codecs of transformers")
    write_ljspeech(folder / "corpus", train=6, dev=2, rate=22_050)
    for kind in ("mimi", "encodec", "dac", "xcodec2"):
        save_small(kind, folder / kind)
    return folder


@pytest.mark.parametrize("codec", ["mimi", "encodec:2", "dac", "xcodec2"])
def test_tokens_are_those_of_each_recording_alone(folder: Path, codec: str, tmp_path: Path) -> None:
    """In shards, from batches, whatever the model makes of padding."""
    output, location = tmp_path / "tokens", f"{folder}/{codec}"
    arguments = ["tokenize", str(folder / "corpus"), "--output", str(output), "--codec", location]
    assert main([*arguments, "--workers", "0", "--device", "cpu"]) == 0
    model = load_codec(location)
    info = CodecInfo.of(model)
    for split, count in (("train", 6), ("validation", 2)):
        dataset = TokenDataset.open(output, split, codec=info)
        assert len(dataset) == count and dataset.info.name == codec
        for row in range(count):
            path = folder / "corpus" / "wavs" / f"{dataset.id(row)}.flac"
            waveform = read_audio(path, info.sampling_rate)
            codes = model.encode(waveform[None, None]).audio_codes[0].numpy()
            assert codes.shape == (info.num_quantizers, -(-len(waveform) // info.hop_length))
            assert np.array_equal(dataset.codes(row), codes.T.reshape(-1))


def test_by_hand(folder: Path, tmp_path: Path) -> None:
    """encode, decode and reconstruct agree, and the result is as long as the recording."""
    recording, codec = folder / "corpus" / "wavs" / "utt001.flac", ["--codec", f"{folder}/mimi:3"]
    codes, decoded, rebuilt = (str(tmp_path / name) for name in ("codes.parquet", "decoded", "rebuilt"))
    assert main(["encode", str(recording), "--output", codes, *codec]) == 0
    assert main(["decode", codes, "--output", decoded, *codec]) == 0
    assert main(["reconstruct", str(recording), "--output", rebuilt, *codec]) == 0
    waveforms = [read_audio(Path(where, "utt001.wav"), 24_000) for where in (decoded, rebuilt)]
    assert np.array_equal(*waveforms) and waveforms[0].abs().max() > 0
    assert len(waveforms[0]) == len(read_audio(recording, 24_000))
    # of another number of quantizers they would mean something else
    assert main(["decode", codes, "--output", decoded, "--codec", f"{folder}/mimi"]) == 2


def test_a_language_model_learns_and_speaks_its_tokens(folder: Path, tmp_path: Path) -> None:
    tokens, run, location = tmp_path / "tokens", tmp_path / "run", f"{folder}/encodec:2"
    corpus = str(folder / "corpus")
    assert main(["tokenize", corpus, "--output", str(tokens), "--codec", location, "--workers", "0"]) == 0
    assert main(["train-tokenizer", corpus, "--output", str(tmp_path / "text.model")]) == 0
    training = ["train-slm", "--datasets", json.dumps([{"path": str(tokens), "voice": "anna"}])]
    training += ["--text_model", str(tmp_path / "text.model"), "--codec", location, "--output", str(run)]
    training += ["--model.layers", "1", "--model.hidden_size", "32", "--model.head_dim", "16"]
    training += ["--model.max_positions", "512", "--model.speech_embeddings", "codebook"]
    training += ["--batch.length", "256", "--batch.blocks", "2", "--max_steps", "2"]
    assert main([*training, "--documents.formats", '{"tts": 1}']) == 0
    (tmp_path / "sentences.txt").write_text("Number one.\n")
    evaluation = [
        "evaluate-slm",
        "--sentences",
        str(tmp_path / "sentences.txt"),
        "--model",
        str(run),
        "--asr",
        "none",
    ]
    assert main([*evaluation, "--output", str(tmp_path / "results"), "--processes", "1"]) == 0
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    assert results["codec"]["name"] == "encodec:2"
    assert list((tmp_path / "results" / "audio").rglob("*.wav"))
