"""The voice of every utterance in a token dataset, and back to sound."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile as sf
import torch

from codec import CodecInfo, save_codec
from data import TokenDataset, open_corpus
from data.combine import combine_datasets
from data.tokenization import TokenizeOptions, tokenize_corpus
from recipes.cli.codec import decode, encode, reconstruct
from tests.codec.small_codecs import speech_like
from tests.codec.test_voice import voiced_codec

SECONDS = (1.0, 0.4, 2.3)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    for number, seconds in enumerate(SECONDS):
        waveform = speech_like(1, round(24_000 * seconds), seed=number)[0]
        sf.write(folder / f"{number}.wav", waveform.numpy(), 24_000, subtype="FLOAT")
    return folder


@torch.no_grad()
def test_rows_carry_the_voice_that_the_codec_gives(recordings: Path, tmp_path: Path) -> None:
    codec = voiced_codec()
    tokenize_corpus(codec, open_corpus(recordings), tmp_path / "tokens", TokenizeOptions())
    combine_datasets([str(tmp_path / "tokens")], str(tmp_path / "combined"))
    for path in (tmp_path / "tokens", tmp_path / "combined"):
        dataset = TokenDataset.open(path, codec=CodecInfo.of(codec))
        assert dataset.info.voice_dim == 6
        card = (path / "README.md").read_text()
        assert "| `codes` | list of uint16 | the stream: one code a frame, frame after frame |" in card
        assert "| `words` | list of {word, start, end} or null |" in card
        assert "| `voice` | list of float16 | 6 numbers that say who speaks |" in card
        for row in range(len(SECONDS)):
            waveform, _ = sf.read(recordings / f"{dataset.id(row)}.wav", dtype="float32")
            alone = codec.encode(torch.from_numpy(waveform)[None, None])
            assert np.array_equal(dataset.codes(row), alone.audio_codes[0, 0])
            assert np.abs(dataset.voice(row) - alone.voice[0].numpy()).max() <= 2e-3  # 16 bits
    assert "voice" not in pq.read_schema(_without_voice(recordings, tmp_path)).names


def _without_voice(recordings: Path, tmp_path: Path) -> Path:
    encode([str(recordings)], str(tmp_path / "plain.parquet"), codec="hh-codec-tiny", device="cpu")
    return tmp_path / "plain.parquet"


def test_the_commands_decode_in_the_recordings_voice(recordings: Path, tmp_path: Path) -> None:
    codec = save_codec(voiced_codec(), tmp_path / "codec")
    encode([str(recordings)], str(tmp_path / "codes.parquet"), codec=str(tmp_path / "codec"), device="cpu")
    decode(
        str(tmp_path / "codes.parquet"),
        str(tmp_path / "decoded"),
        codec=str(tmp_path / "codec"),
        device="cpu",
    )
    reconstruct([str(recordings)], str(tmp_path / "again"), codec=str(tmp_path / "codec"), device="cpu")
    for number, seconds in enumerate(SECONDS):
        waveform, _ = sf.read(recordings / f"{number}.wav", dtype="float32")
        with torch.no_grad():
            encoded = codec.encode(torch.from_numpy(waveform)[None, None])
            wanted = codec.decode(encoded.audio_codes, voice=encoded.voice).audio_values[
                0, 0, : len(waveform)
            ]
            other = codec.decode(encoded.audio_codes).audio_values[0, 0, : len(waveform)]
        for folder in ("decoded", "again"):
            made, _ = sf.read(tmp_path / folder / f"{number}.wav", dtype="float32")
            assert len(made) == round(24_000 * seconds)
            error = np.abs(made - wanted.numpy().clip(-1, 1)).max()
            assert error < 2e-3 < np.abs(made - other.numpy().clip(-1, 1)).max()
