"""A codec of several quantizers through the pipeline: all of its codes, a prefix, or the semantic ones alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from codec import CodecInfo, UserError, load_codec, save_codec
from data import TokenDataset, read_audio, write_audio
from recipes.cli.main import main
from slm.documents.config import DocumentConfig
from slm.generation.planning import Prompt
from slm.generation.speech_lm import SpeechLM
from slm.models.config import ModelConfig
from slm.training.config import BatchConfig, DatasetConfig, SamplesConfig, SLMTrainingConfig
from slm.training.data import open_training_data
from slm.training.loop import train_slm
from tests.codec.small_codecs import small_codec, speech_like

TEXTS = ["Hello there, it rains.", "The next train leaves in twenty minutes.", "Who is it?", "It is late."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec of 64 + 3 times 32 codes, a corpus, and its tokens: all of them, and the semantic ones alone."""
    folder = tmp_path_factory.mktemp("hybrid")
    save_codec(small_codec("hybrid-codec-tiny"), folder / "codec")
    corpus = folder / "corpus"
    (corpus / "wavs").mkdir(parents=True)
    for number, waveform in enumerate(speech_like(4, 40_000)):
        write_audio(corpus / "wavs" / f"u{number}.wav", waveform[: 24_000 + 5_000 * number], 24_000)
    rows = [f"u{number}|{text}|{text}" for number, text in enumerate(TEXTS)]
    (corpus / "metadata.csv").write_text("\n".join(rows) + "\n")
    (corpus / "train.txt").write_text("u0\nu1\nu2\n")
    (corpus / "dev.txt").write_text("u3\n")
    for name, arguments in (("all", []), ("words", ["--max_quantizers", "1"])):
        command = ["tokenize", str(corpus), "--output", str(folder / name), "--codec", str(folder / "codec")]
        assert main([*command, "--speaker", "anna", "--workers", "0", *arguments]) == 0
    assert main(["train-tokenizer", str(corpus), "--output", str(folder / "text.model")]) == 0
    return folder


def test_a_prefix_of_the_codes_is_stored(folder: Path) -> None:
    whole, words = (TokenDataset.open(folder / name) for name in ("all", "words"))
    codec = load_codec(folder / "codec")
    assert (whole.info.codebook_sizes, words.info.codebook_sizes) == ((64, 32, 32, 32), (64,))
    assert whole.info.fingerprint == words.info.fingerprint == CodecInfo.of(codec).fingerprint
    assert len(whole) == len(words) == 3
    for row in range(3):
        waveform = read_audio(folder / "corpus" / "wavs" / f"u{row}.wav", 24_000)
        codes = codec.encode(waveform[None, None]).audio_codes[0]
        assert np.array_equal(whole.codes(row), codes.T.reshape(-1).numpy())  # frame-major
        assert np.array_equal(words.codes(row), codes[0].numpy())
    metadata = json.loads((folder / "words" / "metadata.json").read_text())
    assert metadata["splits"]["train"]["codes_in_use"] == [
        len(np.unique(np.concatenate([words.codes(r) for r in range(3)])))
    ]


@torch.no_grad()
def test_any_number_of_quantizers_is_heard(folder: Path, tmp_path: Path) -> None:
    codec = load_codec(folder / "codec")
    words = TokenDataset.open(folder / "words")
    for name in ("codec", "codec:1"):  # the codec itself, or as it was used
        command = [
            "decode",
            str(folder / "words"),
            "--output",
            str(tmp_path / name),
            "--codec",
            str(folder / name),
        ]
        assert main(command) == 0
        decoded = read_audio(tmp_path / name / "u1.wav", 24_000)
        codes = torch.from_numpy(words.codes(1).astype(np.int64))[None, None]
        expected = codec.decode(codes).audio_values[0, 0, : len(decoded)]
        torch.testing.assert_close(decoded, expected.clamp(-1, 1), atol=1.5 / 32_768, rtol=0)
    waveform = speech_like(1, 30_000)[None]
    everything = codec.encode(waveform).audio_codes
    latents = [codec.codes_to_latents(everything[:, :count]) for count in range(1, 5)]
    assert torch.equal(latents[0].sum, latents[0].semantic) and not latents[0].acoustic.any()
    target = codec.encode_to_latent(waveform).latent - latents[0].semantic
    left = [float((target - part.acoustic).square().mean()) for part in latents]
    assert len(set(left)) == len(left)  # each quantizer counts
    for count in range(1, 5):
        some = load_codec(f"{folder / 'codec'}:{count}")
        assert torch.equal(some.encode(waveform).audio_codes, everything[:, :count])
        assert some.config.num_quantizers == count
    with pytest.raises(UserError, match="has 1 to 4 quantizers to use, not 5"):
        load_codec(folder / "codec", num_quantizers=5)


def config(folder: Path, tokens: str, output: Path, max_quantizers: int | None) -> SLMTrainingConfig:
    return SLMTrainingConfig(
        datasets=[DatasetConfig(str(folder / tokens))],
        text_model=str(folder / "text.model"),
        output=str(output),
        codec=str(folder / "codec"),
        max_quantizers=max_quantizers,
        model=ModelConfig(
            layers=1, hidden_size=32, head_dim=16, max_positions=512, speech_embeddings="codebook"
        ),
        documents=DocumentConfig(formats={"tts": 1.0, "speech": 1.0}),
        batch=BatchConfig(length=256, blocks=2, blocks_per_forward=2),
        max_steps=2,
        precision="float32",
        samples=SamplesConfig(count=0),
        checkpoint_every=2,
    )


@pytest.mark.parametrize(
    ("tokens", "max_quantizers", "sizes"),
    [("words", None, [64]), ("all", 1, [64]), ("all", 3, [64, 32, 32])],
)
def test_a_language_model_of_them_speaks(
    folder: Path, tmp_path: Path, tokens: str, max_quantizers: int | None, sizes: list[int]
) -> None:
    settings = config(folder, tokens, tmp_path / "run", max_quantizers)
    data = open_training_data(settings)
    vocabulary = data.vocabulary
    starts = np.cumsum([0, *sizes[:-1]])
    assert (vocabulary.speech_offsets - vocabulary.speech_start).tolist() == starts.tolist()
    assert vocabulary.speech_end - vocabulary.speech_start == sum(sizes)
    stream = TokenDataset.open(folder / tokens).codes(0)
    frames = stream.reshape(-1, 1 if tokens == "words" else 4)[:, : len(sizes)]
    ids = vocabulary.codes_to_ids(stream)
    assert np.array_equal(ids.reshape(frames.shape) - vocabulary.speech_offsets, frames)
    assert np.array_equal(vocabulary.ids_to_codes(ids), frames.reshape(-1))
    result = train_slm(settings, data)
    assert result.final is not None
    model = SpeechLM.from_pretrained(result.final)
    said = model.speak("It rains.", seed=1)
    assert said.codes.shape[0] == len(sizes) and said.codes.shape[1] > 0
    assert len(said.audio) == 960 * said.codes.shape[1]
    assert (said.codes.amax(dim=1) < torch.tensor(sizes)).all()
    expected = load_codec(folder / "codec").decode(said.codes[None]).audio_values[0, 0]
    torch.testing.assert_close(said.audio, expected.detach(), atol=1e-5, rtol=1e-4)
    recording = read_audio(folder / "corpus" / "wavs" / "u0.wav", 24_000)
    codes = model.encode(recording)
    assert np.array_equal(codes, stream)  # as many a frame as the model's datasets have
    continued = model.continue_speech(Prompt(codes), seconds=0.2, seed=1)
    assert continued.prompt_frames == 25
    assert np.array_equal(continued.codes[:, :25].T.numpy(), frames)


def test_datasets_of_unlike_numbers_of_codes_do_not_mix(folder: Path, tmp_path: Path) -> None:
    settings = config(folder, "all", tmp_path / "run", 1)
    settings.datasets.append(DatasetConfig(str(folder / "words")))
    with pytest.raises(UserError, match="has 1 codes a frame, where 4 are expected"):
        open_training_data(settings)
