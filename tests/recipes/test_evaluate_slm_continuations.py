"""evaluate-slm going on from recordings and predicting rows: sums by hand, and the command on an untrained model."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

from codec.foundation import UserError
from codec.metrics import MissingDependency, clustered_share, open_embedder
from data import Utterance, read_audio, write_audio
from recipes.cli.main import main
from recipes.evaluation.config import ContinuationConfig
from recipes.evaluation.continuations import (
    CEILING,
    MODEL,
    RECORDING,
    Continuation,
    ContinuationSummary,
    evaluate_continuations,
    fitting_prompts,
)
from recipes.evaluation.scoring import Scorer
from recipes.evaluation.sentences import References, VoiceLikeness
from slm.evaluation.metrics import CodeRepetition
from slm.evaluation.text_lm import TextLikelihood
from slm.generation.config import SamplingConfig
from slm.generation.speech_lm import SpeechLM
from slm.models.checkpoint import SpeechCapabilities
from tests.recipes.untrained_models import TEXT, save_codec, save_slm
from tests.slm.text_lm import save_text_lm

RATE = 24_000


def speech(seconds: float, pitch: float) -> torch.Tensor:
    times = np.arange(int(seconds * RATE)) / RATE
    source = sum(np.cos(2 * np.pi * pitch * k * times) / k for k in range(1, 30))
    return torch.from_numpy(0.1 * source * np.clip(np.sin(2 * np.pi * 2 * times), 0, 1)).float()


class Listener:
    """Hears words that depend on how long it listens."""

    name = "listener"
    writes_digits = False

    def transcribe(self, waveform: torch.Tensor, sampling_rate: int) -> str:
        words = TEXT.split()
        return " ".join(
            words[place % len(words)] for place in range(round(4 * len(waveform) / sampling_rate))
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model and its codec, and a corpus: two recordings to go on from, one that is too short."""
    folder = tmp_path_factory.mktemp("recordings")
    capabilities = SpeechCapabilities(formats=["tts", "asr"], seconds_per_character=[0.04, 0.06, 0.1])
    save_slm(folder / "slm", save_codec(folder / "codec"), ["slt"], capabilities)
    lines = []
    for number, seconds in enumerate((3.0, 2.4, 0.9)):
        write_audio(folder / f"{number}.wav", speech(seconds, 100.0 + 30 * number), RATE)
        entry = {
            "id": f"r{number}",
            "audio": f"{number}.wav",
            "text": TEXT.split(".")[number].strip() or "Yes",  # an empty text is none
            "speaker": "slt",
        }
        lines.append(json.dumps(entry | {"split": "validation"}))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_samples_of_a_prompt_count_as_one() -> None:
    def row(prompt: str, sample: int, **measured: object) -> Continuation:
        return Continuation(prompt, MODEL, sample, 2.0, sample == 0, None, CodeRepetition(0.1, 3), **measured)  # type: ignore[arg-type]

    rows = [
        row("a", 0, auto_bleu=0.2, self_bleu=0.5, likelihood=TextLikelihood(8.0, 4, 20), values={"x": 1.0}),
        row(
            "a", 1, auto_bleu=0.4, self_bleu=math.nan, likelihood=TextLikelihood(2.0, 1, 5), values={"x": 3.0}
        ),
        row("b", 0, auto_bleu=0.5, self_bleu=0.3, values={"x": math.nan}),
        row("b", 1, auto_bleu=0.5, self_bleu=0.3, likelihood=TextLikelihood(5.0, 5, 9), values={"x": 5.0}),
    ]
    summary = ContinuationSummary.of(rows)
    assert summary.auto_bleu.value == pytest.approx((0.3 + 0.5) / 2)
    assert summary.self_bleu.value == pytest.approx((0.5 + 0.3) / 2)
    assert summary.vert == pytest.approx(math.sqrt(0.4 * 0.4))
    assert summary.perplexity.value == pytest.approx(math.exp(15.0 / 10))
    # between each prompt alone, and wider: there are but two
    assert 1.0 <= summary.perplexity.low <= math.exp(1.0) and summary.perplexity.high >= math.exp(2.0)
    assert summary.prompts == 2 and summary.ended == clustered_share(np.ones(2), np.full(2, 2.0))
    assert math.isnan(summary.heard.value)  # nobody listened
    assert summary.ended.value == 0.5 and summary.values["x"].value == pytest.approx((2.0 + 5.0) / 2)
    assert summary.repeated.value == pytest.approx(0.1) and summary.longest_run == 3


def test_what_follows_a_prompt(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipes.evaluation.scoring.open_recognizer", lambda *_: Listener())
    language_model = SpeechLM.from_pretrained(folder / "slm")
    utterances = [Utterance(f"r{number}", folder / f"{number}.wav") for number in range(3)]
    config = ContinuationConfig(prompt_seconds=0.5, seconds=2.0, samples=2)
    with Scorer([], "some/listener", processes=1) as scorer:
        result = evaluate_continuations(
            language_model, utterances, config, scorer, tmp_path, SamplingConfig(temperature=1.0)
        )
        again = evaluate_continuations(
            language_model, utterances, config, scorer, tmp_path, SamplingConfig(temperature=1.0)
        )
    assert result.systems == [RECORDING, CEILING, MODEL]
    assert result.failures == {"r2": "r2 is 0.9 s long: it does not go on for 1 s after a prompt of 0.5 s"}
    assert result.rows == again.rows
    rows = {(row.id, row.system, row.sample): row for row in result.rows}
    assert len(rows) == 2 * (2 + 2)
    for identity, rest in (("r0", 2.0), ("r1", 1.9)):
        for system in (RECORDING, CEILING):
            assert rows[identity, system, 0].seconds == pytest.approx(rest, abs=0.05)
            # the words of what follows, the prompt left out
            assert len((rows[identity, system, 0].transcript or "").split()) == round(4 * rest)
        for sample in (0, 1):
            row = rows[identity, MODEL, sample]
            assert row.audio is not None and row.seconds <= rest + 0.03
            assert len(read_audio(tmp_path / row.audio, RATE)) == round((0.5 + row.seconds) * RATE)
    # the samples of a prompt differ, and those of another prompt too
    sounds = {
        read_audio(tmp_path / str(row.audio), RATE).numpy().tobytes() for row in result.rows if row.audio
    }
    assert len(sounds) == 4
    assert "perplexity of continuations" in result.skipped
    with (
        Scorer([], "none", processes=1) as scorer,
        pytest.raises(UserError, match="no recording to go on from"),
    ):
        evaluate_continuations(language_model, utterances[2:], config, scorer, tmp_path, SamplingConfig())


def test_who_says_nothing_is_counted() -> None:
    """Else a model that is mute after most prompts looks as good as its few words."""
    texts = {"a": ["hello there", "", " ..."], "b": ["hello", "hello you", "x"], "c": ["", "", ""]}
    rows = [
        Continuation(prompt, MODEL, sample, 1.0, True, None, None, transcript=text)
        for prompt, said in texts.items()
        for sample, text in enumerate(said)
    ]
    heard = ContinuationSummary.of(rows).heard
    assert heard == clustered_share(np.array([1.0, 3.0, 0.0]), np.full(3, 3.0)) and heard.value == 4 / 9


def test_a_model_that_ends_at_once(
    folder: Path, speaker_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing follows, and nothing is measured of it, at a codec's rate that no judge shares."""
    monkeypatch.setattr("recipes.evaluation.scoring.open_recognizer", lambda *_: Listener())
    monkeypatch.setattr("recipes.evaluation.continuations.generate", lambda *_: None)
    language_model = SpeechLM.from_pretrained(folder / "slm")
    config = ContinuationConfig(prompt_seconds=0.5, seconds=1.0, samples=1)
    with Scorer(["prosody"], "some/listener", processes=1) as scorer:
        result = evaluate_continuations(
            language_model, [Utterance("r0", folder / "0.wav")], config, scorer, tmp_path, SamplingConfig(),
            embedder=open_embedder(str(speaker_model)),
        )  # fmt: skip
    (row,) = (row for row in result.rows if row.system == MODEL)
    assert (row.seconds, row.ended, row.transcript) == (0.0, True, "")
    assert row.values and all(math.isnan(value) for value in row.values.values())
    assert result.summary(MODEL).heard.value == 0 and result.summary(RECORDING).heard.value == 1


def test_recordings_that_are_too_short_are_known_beforehand(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    utterances = [Utterance(f"r{number}", folder / f"{number}.wav") for number in range(3)]
    utterances.append(Utterance("broken", tmp_path / "broken.wav"))
    found = fitting_prompts(utterances, ContinuationConfig(prompt_seconds=1.5))
    assert [utterance.id for utterance in found.utterances] == ["r0"]
    assert list(found.failures) == ["r1", "r2", "broken"]
    with pytest.raises(UserError, match=r"the longest has 3\.0 s: shorten --continuation.prompt_seconds"):
        fitting_prompts(utterances, ContinuationConfig())


def test_gain_comes_before_the_prompt(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    language_model = SpeechLM.from_pretrained(folder / "slm")
    read, heard = language_model.read, []
    monkeypatch.setattr(language_model, "read", lambda waveform: heard.append(waveform) or read(waveform))
    config = ContinuationConfig(prompt_seconds=0.5, seconds=1.0, samples=1)
    for gain in (1.0, 2.0):
        with Scorer([], "none", processes=1) as scorer:
            evaluate_continuations(
                language_model, [Utterance("r", folder / "0.wav")], config, scorer, tmp_path, SamplingConfig(),
                gain=gain,
            )  # fmt: skip
    plain, doubled = heard[:2], heard[2:]  # the prompt, and the recording through the codec
    assert len(plain) == len(doubled) == 2 and len(plain[0]) == RATE // 2
    assert all(torch.equal(2.0 * one, two) for one, two in zip(plain, doubled, strict=True))


def test_why_nobody_listened(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lack(package: str, purpose: str) -> None:
        raise MissingDependency(f"{purpose} needs the package {package}")

    monkeypatch.setattr("recipes.evaluation.scoring.require", lack)
    language_model = SpeechLM.from_pretrained(folder / "slm")
    config = ContinuationConfig(prompt_seconds=0.5, seconds=1.0, samples=1)
    with Scorer([], "pocketsphinx", processes=1) as scorer:
        result = evaluate_continuations(
            language_model, [Utterance("r0", folder / "0.wav")], config, scorer, tmp_path, SamplingConfig()
        )
    reason = result.skipped["perplexity, auto-BLEU and self-BLEU of continuations"]
    assert "needs the package jiwer" in reason and "--asr none" not in reason


@pytest.fixture(scope="module")
def speaker_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A speaker verification model of one small layer."""
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("a speaker model")
    config = WavLMConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48, conv_dim=[16] * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, tdnn_dim=[24, 24, 24, 24, 48],
        xvector_output_dim=16,
    )  # fmt: skip
    WavLMForXVector(config).save_pretrained(directory)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(directory)
    return directory


def test_a_voice_is_compared_with_its_other_recordings(folder: Path, speaker_model: Path) -> None:
    embedder = open_embedder(str(speaker_model))
    texts = TEXT.split(".")
    recordings = [
        Utterance(f"r{number}", folder / f"{number}.wav", text=texts[number], speaker="slt")
        for number in range(3)
    ]
    likeness = VoiceLikeness(embedder, References(recordings))
    embeddings = [embedder.embed(read_audio(u.path, 16_000), 16_000) for u in recordings]
    sound = read_audio(recordings[0].path, 16_000)
    expected = [float(embeddings[0] @ embeddings[other]) for other in (1, 2)]  # type: ignore[operator]
    assert likeness(sound, 16_000, "slt", texts[0].upper()) == pytest.approx(sum(expected) / 2, abs=1e-5)
    everything = (1.0 + sum(expected)) / 3
    assert likeness(sound, 16_000, "slt", "something else") == pytest.approx(everything, abs=1e-5)
    assert math.isnan(likeness(sound, 16_000, "rms", texts[0]))
    assert math.isnan(likeness(sound, 16_000, None, texts[0]))
    assert math.isnan(likeness(sound[:1_000], 16_000, "slt", texts[0]))


@pytest.mark.usefixtures("undrawn")
def test_the_command(
    folder: Path,
    speaker_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("recipes.evaluation.scoring.open_recognizer", lambda *_: Listener())
    corpus, tokens, output = folder / "manifest.jsonl", tmp_path / "tokens", tmp_path / "out"
    assert main(["tokenize", str(corpus), "--codec", str(folder / "codec"), "--output", str(tokens)]) == 0
    (tmp_path / "sentences.txt").write_text("Hello there.\n")
    text_lm = save_text_lm(tmp_path / "text lm", steps=2)
    arguments = ["evaluate-slm", "--model", str(folder / "slm"), "--output", str(output), "--processes", "1"]
    arguments += [
        "--sentences",
        str(tmp_path / "sentences.txt"),
        "--references",
        str(corpus),
        "--metrics",
        "[prosody]",
    ]
    arguments += ["--continuations", str(corpus), "--continuation.prompt_seconds", "0.5"]
    arguments += [
        "--continuation.samples",
        "2",
        "--continuation.temperature",
        "0.9",
        "--asr",
        "some/listener",
    ]
    arguments += ["--text_lm", str(text_lm), "--speaker_model", str(speaker_model)]
    arguments += ["--cross_modal", str(tokens), "--retrieval_candidates", "3"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "not measured: UTMOS (no weights" in shown and "speaker similarity (" not in shown

    results = json.loads((output / "results.json").read_text())
    model = results["systems"]["model, voice slt"]
    assert set(model["values"]) <= {"f0_spread_semitones", "energy_range_db", "speaker_similarity"}
    assert {"speaking_rate", "repeated", "longest_run", "ended"} <= set(model)
    assert "ended" not in results["systems"].get("reference recordings", {})
    assert results["continuation"]["temperature"] == 0.9
    went_on = results["continuations"]["systems"]
    assert list(went_on) == [RECORDING, CEILING, MODEL]
    assert all({"perplexity", "auto_bleu", "self_bleu", "vert", "values"} <= set(s) for s in went_on.values())
    assert "ended" in went_on[MODEL] and "ended" not in went_on[RECORDING]
    assert list(results["continuations"]["failures"]) == ["r2"]
    connected = results["cross_modal"]["tokens"]
    assert connected["rows"] == 3 and connected["not_trained_on"] == []
    assert {(entry["reading"], entry["find"]) for entry in connected["retrieval"]} == {
        (reader, find)
        for reader in ("speech after text", "text after speech")
        for find in ("text for speech", "speech for text")
    }
    rows = pd.read_parquet(output / "continuations.parquet")
    assert len(rows) == 8 and rows.nats.notna().all() and rows.prompt_similarity.notna().sum() >= 4
    assert (rows.audio.dropna().map(lambda path: (output / path).is_file())).all()
    connected_rows = pd.read_parquet(output / "cross_modal.parquet")
    assert len(connected_rows) == 3 and connected_rows.nats_text_after_its_speech.notna().all()
    found = connected_rows.text_for_speech_reading_speech_after_text.mean()
    assert found == pytest.approx(
        next(
            entry["accuracy"]["value"]
            for entry in connected["retrieval"]
            if (entry["reading"], entry["find"]) == ("speech after text", "text for speech")
        )
    )
    assert pd.read_parquet(output / "sentences.parquet").repeated.notna().any()
    page = (output / "report.md").read_text()
    for heading in ("## How it sounds", "## Going on", "## Text and speech", "## Not measured"):
        assert heading in page


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (
            ["--metrics", "[stoi]", "--pairs", "x"],
            "no metric stoi of speech by itself; there are prosody, dnsmos",
        ),
        (["--continuation.samples", "0"], "continuation.samples is 0"),
        (["--continuation.seconds", "0.5"], "continuation.seconds at least 1"),
        (["--retrieval_candidates", "2", "--pairs", "x"], "retrieval_candidates is 2: at least 3"),
        (
            ["--continuations", "CORPUS", "--continuation.split", "test"],
            "has no test split: it has validation (3)",
        ),
        (["--cross_modal", "CORPUS"], "not a Parquet file"),
    ],
)
def test_bad_flags(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], complaint: str
) -> None:
    given = [str(folder / "manifest.jsonl") if flag == "CORPUS" else flag for flag in flags]
    arguments = ["evaluate-slm", "--model", str(folder / "slm"), "--output", str(tmp_path / "out")]
    assert main([*arguments, *given]) == 2
    assert complaint in capsys.readouterr().err
