"""A recogniser in the loop: what it hears, that it teaches a codec, and that it can be made from a corpus."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from codec.foundation import UserError
from codec.losses.config import DiscriminatorWeights, LossWeights
from codec.losses.recogniser import MelRecogniser, RecogniserConfig, RecogniserLoss
from codec.nn.sequences import mask_from_lengths
from codec.training.config import CodecTrainingConfig, OptimizerConfig, Stage
from codec.training.loop import train_codec
from codec.training.step import CodecTrainingStep, SemanticObjectives
from data.corpora.utterance import Utterance, Word
from data.segments import Labeller
from recipes.cli import main as cli
from tests.codec.small_codecs import small_codec, small_config, speech_like
from tests.codec.training_runs import speech_data

RATE = 24_000
TONES = {"a": 300.0, "b": 700.0, "c": 1_500.0, "d": 3_100.0}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small recogniser of the small codecs' mel, untrained."""
    torch.manual_seed(0)
    mel = small_config("hh-codec-tiny").vocoder_config.mel
    config = RecogniserConfig("abc ", dim=16, hidden_dim=32, blocks=3, mel=vars(mel))
    path = str(tmp_path_factory.mktemp("recogniser"))
    MelRecogniser(config).save_pretrained(path)
    return path


def test_the_loss_is_zero_for_the_same_speech_at_any_level(directory: str) -> None:
    loss = RecogniserLoss(directory)
    audio = speech_like(2, 24_000)
    target = loss.mel(audio)
    mask = torch.ones(target.shape[:2], dtype=torch.bool)
    assert float(loss(target, target, mask)) == 0.0
    assert float(loss(target + math.log(4), target, mask)) == pytest.approx(0.0, abs=1e-5)
    noisy = loss.mel(audio + 0.05 * torch.randn(audio.shape))
    noisier = loss.mel(audio + 0.5 * torch.randn(audio.shape))
    assert 0.01 < float(loss(noisy, target, mask)) < float(loss(noisier, target, mask))


def test_the_loss_of_a_batch_is_the_sum_of_its_rows(directory: str) -> None:
    loss = RecogniserLoss(directory)
    a, b = loss.mel(speech_like(3, 12_000)), loss.mel(speech_like(3, 12_000, seed=5))
    frames = torch.tensor([a.shape[1], a.shape[1] - 7, 11])
    mask = mask_from_lengths(frames, a.shape[1])
    whole = loss(torch.where(mask[..., None], a, 9.0), torch.where(mask[..., None], b, -9.0), mask)
    total = float(frames.sum())
    parts = [
        loss(a[row : row + 1, :n], b[row : row + 1, :n], torch.ones(1, int(n), dtype=torch.bool), total)
        for row, n in enumerate(frames)
    ]
    assert float(whole) == pytest.approx(sum(map(float, parts)), rel=1e-5)


@pytest.mark.parametrize("with_waveform", [False, True])
def test_the_gradient_reaches_the_codec_and_not_the_recogniser(directory: str, with_waveform: bool) -> None:
    codec = small_codec("hh-codec-tiny", exported=False)
    step = CodecTrainingStep(codec, SemanticObjectives(recogniser=RecogniserLoss(directory)))
    weights = LossWeights(mel=0, vq=0, recogniser=1.0, multi_scale=1e-9 if with_waveform else 0.0)
    stage = Stage(losses=weights, train=["encoder", "decoder"])
    output = step(speech_like(2, 12_000), torch.tensor([12_000, 7_000]), stage)
    output.losses["loss"].backward()
    assert output.losses["recogniser"].item() > 0
    for part in ("encoder", "decoder") + (("vocoder",) if with_waveform else ()):
        assert any(
            p.grad is not None and p.grad.abs().sum() > 0 for p in codec.get_submodule(part).parameters()
        )
    assert not any("recogniser" in name for name in step.state_dict())
    assert all(p.grad is None for p in step.recogniser.model.parameters())


def test_a_codec_learns_by_what_is_heard(directory: str, tmp_path: Path) -> None:
    stage = Stage(
        steps=24,
        losses=LossWeights(
            mel=0, vq=1.0, recogniser=10.0, discriminators={"mel": DiscriminatorWeights(0.01, 0.01)}
        ),
        optimizer=OptimizerConfig(learning_rate=2e-3),
        segment_seconds=0.5,
        batch_size=2,
    )
    config = CodecTrainingConfig(
        output=str(tmp_path / "run"),
        model=str(tmp_path / "small"),
        stages=[stage],
        recogniser=directory,
        discriminators={"mel": {"channels": 4}},
        log_every=5,
    )
    small_config("hh-codec-tiny").save_pretrained(tmp_path / "small")
    train_codec(config, speech_data())
    lines = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    learnt = [line for line in lines if "recogniser" in line]
    assert learnt[-1]["recogniser"] < 0.8 * learnt[0]["recogniser"]
    # the discriminator of mels learns in a stage without a vocoder
    assert learnt[-1]["mel/discriminator"] < learnt[0]["mel/discriminator"]


def test_weight_and_recogniser_go_together(tmp_path: Path) -> None:
    stage = Stage(losses=LossWeights(recogniser=1.0))
    with pytest.raises(UserError, match="go together"):
        CodecTrainingConfig(stages=[stage])
    with pytest.raises(UserError, match="go together"):
        CodecTrainingConfig(recogniser="x")
    with pytest.raises(UserError, match="cannot load the recogniser"):
        RecogniserLoss(str(tmp_path))


def test_what_is_said_at_each_instant() -> None:
    words = [Word("ab", 1.0, 2.0), Word("x?", None, None), Word("c", 3.0, 3.5), Word("B", 3.5, 4.0)]
    utterance = Utterance("u", Path("u.wav"), text="ab x? c B", words=words)
    labeller = Labeller([utterance], 100, "abc ")
    instants = {0.5: 3, 1.2: 0, 1.7: 1, 2.5: -1, 3.2: 2, 3.6: 1, 3.99: 1, 4.5: 3}
    found = labeller.said("u", np.array(list(instants)) * 100)
    assert found.tolist() == list(instants.values())
    unknown = Labeller([Utterance("v", Path("v.wav"), text="ab")], 100, "ab ")
    assert unknown.said("v", np.array([1.0, 2.0])).tolist() == [-1, -1]


def tone_corpus(directory: Path) -> Path:
    """Recordings of words whose letters are tones, with the words' times."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(24):
        audio, words, text = [np.zeros(2_400)], [], []
        for _ in range(4):
            word = "".join(random.choice(list(TONES), 3, replace=False))
            start = sum(map(len, audio)) / RATE
            for letter in word:
                time = np.arange(2_400) / RATE
                audio.append(0.3 * np.sin(2 * np.pi * TONES[letter] * time) * np.hanning(2_400))
            words.append([word, start, sum(map(len, audio)) / RATE])
            audio.append(np.zeros(1_200))
            text.append(word)
        noise = 0.001 * random.standard_normal(sum(map(len, audio)))
        soundfile.write(directory / f"{number}.wav", np.concatenate(audio) + noise, RATE)
        split = "validation" if number >= 20 else "train"
        rows.append(
            {
                "id": str(number),
                "audio": f"{number}.wav",
                "text": " ".join(text),
                "words": words,
                "split": split,
            }
        )
    (directory / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory / "manifest.jsonl"


def test_a_recogniser_is_trained_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpora = f"[{{path: {tone_corpus(tmp_path)}}}]"
    run = tmp_path / "a run"
    command = ["train-recogniser", "--corpora", corpora, "--output", str(run), "--dim", "32", "--blocks", "2"]
    command += ["--steps", "60", "--batch_size", "8", "--segment_seconds", "1.2", "--learning_rate", "4e-3"]
    command += ["--checkpoint_every", "30"]
    assert cli.main(command) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith(f"{run / 'final'}: ") and "of 4 held-out recordings" in said
    assert float(said.split(" in ")[1].split("%")[0]) > 85.0  # a third is silence
    assert cli.main(command) == 0  # it is finished: nothing is trained, the same is said
    assert capsys.readouterr().out.splitlines()[-1] == said
    assert cli.main([*command, "--dim", "48"]) == 2
    assert "holds a run with another config (dim was 32, is now 48)" in capsys.readouterr().err
