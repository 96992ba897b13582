"""evaluate-codec: known numbers through the whole chain, whatever the number of workers; what is left on disk."""

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import resample

from codec import load_codec
from codec.foundation import UserError
from codec.metrics import DEV_LOG_MEL, Column, EditCounts, log_mel, log_mel_l1, usable_metrics
from data import Utterance, open_corpus, read_audio, write_audio
from recipes.cli.main import main
from recipes.evaluation.codec_evaluation import (
    RECORDING,
    CodecEvaluation,
    NamedCodec,
    UtteranceRow,
    evaluate,
    vocoder_of,
)
from recipes.evaluation.codec_report import summary, systems_table
from recipes.evaluation.scoring import Scorer, Scores, ScoringTask
from tests.codec.small_adapters import save_small
from tests.recipes.untrained_models import save_codec

RATE = 24_000
CODEC = "halving"
VOCODER = vocoder_of(CODEC)


def tone(seconds: float, pitch: float) -> Tensor:
    """Harmonics in syllables over a breath of noise: enough for every metric to be defined."""
    times = np.arange(int(seconds * RATE)) / RATE
    source = sum(np.cos(2 * np.pi * pitch * k * times + k * k) / k for k in range(1, 40))
    syllables = np.clip(np.sin(2 * np.pi * 2 * times), 0, 1)
    noise = np.random.default_rng(int(pitch)).standard_normal(len(times))
    return torch.from_numpy(0.1 * source * syllables + 0.002 * noise).float()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings to evaluate on, one to train on, and one that is broken."""
    directory = tmp_path_factory.mktemp("a corpus")
    (directory / "wavs").mkdir()
    lines = []
    for i, (seconds, pitch) in enumerate([(2.03, 110.0), (1.51, 190.0), (1.0, 150.0)]):
        write_audio(directory / "wavs" / f"u{i}.wav", tone(seconds, pitch), RATE)
        lines.append(f"u{i}|one two three|one two three")
    (directory / "wavs" / "u3.wav").write_text("not audio")
    (directory / "metadata.csv").write_text("\n".join([*lines, "u3|four|four"]) + "\n")
    (directory / "train.txt").write_text("u2\n")
    (directory / "dev.txt").write_text("u0\nu1\nu3\n")
    return directory


class HalvingCodec(nn.Module):
    """Gives every recording back at half its level; its mel is right, and its vocoder perfect."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(
            sampling_rate=RATE,
            hop_length=1_000,
            codebook_sizes=[4],
            vocoder_config=SimpleNamespace(mel=DEV_LOG_MEL),
        )

    def encode(self, input_values: Tensor) -> Any:
        self.padded = F.pad(input_values[0, 0], (0, -input_values.shape[-1] % 1_000))
        frames = len(self.padded) // 1_000
        return SimpleNamespace(audio_codes=torch.arange(frames).remainder(4)[None, None], voice=None)

    def normalized(self, waveform: Tensor) -> Tensor:
        return waveform

    def decode(self, audio_codes: Tensor, voice: None = None) -> Any:
        return SimpleNamespace(audio_values=0.5 * self.padded[None, None], mel=log_mel(self.padded)[None])

    def vocode(self, mel: Tensor, mask: None, frames: int) -> Tensor:
        return self.padded[None, None]


def test_a_codec_that_halves_the_level_costs_ln_2(corpus: Path) -> None:
    utterances = open_corpus(corpus).split("validation")
    with Scorer(["log_mel_l1", "multi_resolution_stft"], asr="none", processes=1) as scorer:
        result = evaluate([NamedCodec(CODEC, HalvingCodec())], utterances, scorer, gain=2.0)
    assert result.systems == [VOCODER, CODEC]  # nothing to say of the recordings without a recogniser
    assert result.mean(CODEC, "log_mel_l1") == (pytest.approx(math.log(2), abs=0.02), 2)
    assert result.mean(CODEC, "multi_resolution_stft")[0] == pytest.approx(0.5 + math.log(2), abs=0.02)
    # only the last frames differ: they see zeros behind the recording where the reference is reflected
    assert result.mean(CODEC, "log_mel_l1_before_vocoder")[0] < 0.02
    assert result.mean(VOCODER, "log_mel_l1")[0] == 0
    assert [failure["id"] for failure in result.failures] == ["u3"]
    assert result.codecs[0].frames == 49 + 37 and result.seconds == pytest.approx(2.03 + 1.51, abs=1e-3)
    codes = summary(result, {"codecs": {CODEC: {}}})["codecs"][CODEC]
    assert codes["codebooks"][0]["used"] == 4
    assert codes["bitrate"]["nominal"] == 48 and codes["bitrate"]["entropy"] == pytest.approx(48, abs=0.1)


def test_workers_change_nothing_and_keep_the_order() -> None:
    slow = {"dnsmos", "distillmos"}
    names = [metric.name for metric in usable_metrics().metrics if metric.name not in slow]
    rng = np.random.default_rng(0)
    tasks = []
    for i in range(6):
        reference = tone(0.6 + 0.02 * i, 100.0 + 10 * i).numpy()
        estimate = reference + 0.01 * rng.standard_normal(len(reference)).astype(np.float32)
        text = "one two" if i == 3 else None
        tasks.append((i, ScoringTask(estimate, RATE, reference, text)))
    results = []
    for processes in (1, 2):
        with Scorer(names, asr="pocketsphinx", processes=processes) as scorer:
            results.append(list(scorer.run(iter(tasks))))
    # sums depend on the number of threads in their last digits
    for (_, one), (_, other) in zip(*results, strict=True):
        assert one.values == pytest.approx(other.values, rel=1e-9)
        assert (one.transcript, one.words, one.characters) == (
            other.transcript,
            other.words,
            other.characters,
        )
    assert [[key for key, _ in result] for result in results] == 2 * [list(range(6))]
    assert all(scores.values["stoi"] > 0 for _, scores in results[0])
    assert [scores.words is not None for _, scores in results[0]] == [i == 3 for i in range(6)]


def table_of(evaluation: CodecEvaluation) -> str:
    facts = {"codecs": {codec.name: {} for codec in evaluation.codecs}}
    return str(systems_table(summary(evaluation, facts), evaluation.columns))


def test_a_single_recording_has_a_rate_and_no_interval() -> None:
    scores = Scores(words=EditCounts(1, 0, 0, 4), characters=EditCounts(2, 0, 0, 20))
    row = UtteranceRow(Utterance("u", "u.wav"), RECORDING, None, 1.0, None, scores)
    evaluation = CodecEvaluation([], [], {}, [row])
    written = json.dumps(summary(evaluation, {"codecs": {}}), allow_nan=False)
    rate = json.loads(written)["systems"][RECORDING]["word_error_rate"]
    assert rate == {"value": 0.25, "low": None, "high": None, "level": 0.95}
    assert "| 25.0 % | 10.0 % |" in table_of(evaluation)


def test_error_rates_are_those_of_the_corpus(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors are added up before they are divided, and the recordings have their own row."""

    class Deaf:
        name, heard = "deaf", iter(["one two three", "one", "one three", "one two three", "one", "one three"])
        writes_digits = False

        def transcribe(self, waveform: Tensor, sampling_rate: int) -> str:
            return next(self.heard)

    monkeypatch.setattr("recipes.evaluation.scoring.open_recognizer", lambda *_: Deaf())
    short, long, broken = open_corpus(corpus).split("validation")
    long = dataclasses.replace(long, text="one two three four five six")
    with Scorer([], asr="some/model", processes=1) as scorer:
        result = evaluate([NamedCodec(CODEC, HalvingCodec())], [short, long, broken], scorer)
    assert [(row.system, row.scores.words.errors) for row in result.rows] == [
        (RECORDING, 0),
        (VOCODER, 2),
        (CODEC, 1),
        (RECORDING, 3),
        (VOCODER, 5),
        (CODEC, 4),
    ]
    assert result.error_rate(CODEC, "words").value == pytest.approx(5 / 9)  # the mean of the rates is a half
    assert result.error_rate(VOCODER, "words").value == pytest.approx(7 / 9)
    assert result.error_rate(CODEC, "characters").value == pytest.approx((4 + 18) / (13 + 27))
    table = table_of(result).splitlines()
    assert table[0] == "|  | WER ↓ | CER ↓ |"
    assert table[-1].startswith("| halving | 55.6 % (") and "| 55.0 % (" in table[-1]


@pytest.fixture(scope="module")
def codec_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_codec(tmp_path_factory.mktemp("codecs") / "an untrained codec")


def test_the_command_leaves_tables_pictures_and_audio(
    corpus: Path, codec_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "my results"
    arguments = ["evaluate-codec", str(corpus), "--codec", str(codec_directory), "--output", str(output)]
    assert main([*arguments, "--metrics=[log_mel_l1,stoi]", "--asr", "none", "--processes", "1"]) == 0
    printed = capsys.readouterr().out
    assert "log-mel L1 before vocoder" in printed and str(output / "report.md") in printed

    results = json.loads((output / "results.json").read_text())
    (name,) = results["codecs"]
    about = results["codecs"][name]
    assert name == "hh-codec-tiny" and len(about["fingerprint"]) == 16
    assert about["location"] == str(codec_directory)
    assert results["utterances"] == 2 and [f["id"] for f in results["failures"]] == ["u3"]
    assert about["bitrate"]["nominal"] == 24 * 11
    assert set(results["systems"]) == {vocoder_of(name), name}
    assert about["speed"]["together"] > 0
    shares = about["stability"]["shares"]
    assert about["stability"]["utterances"] == 2 and len(shares) == 9
    assert all(0 <= share["unchanged"] <= 1 for share in shares.values())
    # what could have been measured is named with what it would have taken
    assert set(results["skipped"]) == {"speaker similarity", "UTMOS", "word and character error rate"}
    assert "not measured: UTMOS (no weights: --utmos" in printed

    rows = pd.read_parquet(output / "utterances.parquet")
    codec = rows[rows.system == name]
    assert list(codec.id) == ["u0", "u1"] and list(codec.frames) == [49, 37]
    assert codec.log_mel_l1.mean() == pytest.approx(results["systems"][name]["log_mel_l1"]["mean"])
    page = (output / "report.md").read_text()
    table = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(table) == 4 and "\n".join(table) in page and "u3" in page and "Not measured: UTMOS" in page
    for picture in ("codes.png", "spectrogram.png"):
        assert (output / picture).read_bytes().startswith(b"\x89PNG")
    assert len(list((output / "examples").glob("*.codec.wav"))) == 2


@pytest.mark.usefixtures("undrawn")
def test_codes_alone_need_no_decoding(corpus: Path, codec_directory: Path, tmp_path: Path) -> None:
    arguments = ["evaluate-codec", "--codec", str(codec_directory), "--output", str(tmp_path)]
    arguments += ["--split", "train", "--metrics=[]", "--asr", "none"]
    manifest = tmp_path / "m.csv"
    rows = "".join(f"{corpus}/wavs/u{n}.wav;{fold}\n" for n, fold in enumerate(["dev", "test", "train"]))
    manifest.write_text(f"sound;fold\n{rows}", encoding="utf-16")
    columns = ["--audio_column", "sound", "--split_column", "fold", "--encoding", "utf-16"]
    assert main([*arguments, str(manifest), *columns]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["codecs"]["hh-codec-tiny"]["frames"] == 24
    assert results["systems"] == {"hh-codec-tiny": {}}
    assert not (tmp_path / "examples").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_codecs_of_several_rates_stand_side_by_side(corpus: Path, tmp_path: Path) -> None:
    """What they say is that of each alone, but for the reference: the recording at 24 kHz for all."""
    encodec, dac = save_small("encodec", tmp_path / "encodec"), save_small("dac", tmp_path / "dac")
    arguments = ["evaluate-codec", str(corpus), "--asr", "none", "--processes", "1", "--stability", "1"]
    arguments += ["--metrics", "log_mel_l1", "--metrics", "multi_resolution_stft", "--output"]
    both = [*arguments, str(tmp_path / "both"), "--codec", f"{encodec}:2", "--codec", str(dac)]
    assert main(both) == 0
    results = json.loads((tmp_path / "both" / "results.json").read_text())
    assert list(results["codecs"]) == list(results["systems"]) == ["encodec:2", "dac"]
    assert main([*arguments, str(tmp_path / "alone"), "--codec", str(dac)]) == 0
    alone = json.loads((tmp_path / "alone" / "results.json").read_text())
    assert alone["systems"]["dac"] == results["systems"]["dac"]
    for about in (results["codecs"]["dac"], alone["codecs"]["dac"]):
        about.pop("speed")
    assert alone["codecs"]["dac"] == results["codecs"]["dac"]
    assert results["codecs"]["dac"]["frames"] == math.ceil(2.03 * 50) + math.ceil(1.51 * 50)
    assert results["codecs"]["dac"]["bitrate"]["nominal"] == 3 * 5 * 50
    # 16 kHz is its own rate
    assert "resampled to 16 kHz and back" in results["codecs"]["encodec:2"]["stability"]["shares"]
    assert "resampled to 16 kHz and back" not in results["codecs"]["dac"]["stability"]["shares"]
    rows = pd.read_parquet(tmp_path / "both" / "utterances.parquet")
    assert list(rows.codec) == ["encodec:2", "dac"] * 2
    utterance = next(u for u in open_corpus(corpus).split("validation") if u.id == "u0")
    codec = load_codec(dac)
    codes = codec.encode(read_audio(utterance.path, 16_000)[None, None]).audio_codes
    audio = resample(codec.decode(codes).audio_values[0, 0], 16_000, 24_000)
    expected = log_mel_l1(read_audio(utterance.path, 24_000), audio, 24_000)
    assert rows[rows.codec == "dac"].log_mel_l1.iloc[0] == pytest.approx(expected, rel=1e-5)
    assert len(list((tmp_path / "both" / "examples").glob("u0.*.wav"))) == 3


@pytest.mark.usefixtures("undrawn")
def test_two_codecs_of_one_name_are_told_apart(corpus: Path, tmp_path: Path) -> None:
    one, two = (
        save_small("dac", tmp_path / "one" / "dac"),
        save_small("dac", tmp_path / "two" / "dac", seed=1),
    )
    arguments = [
        "evaluate-codec",
        str(corpus),
        "--asr",
        "none",
        "--metrics=[]",
        "--output",
        str(tmp_path / "r"),
    ]
    assert main([*arguments, "--stability", "0", f"--codec={json.dumps([str(one), str(two)])}"]) == 0
    results = json.loads((tmp_path / "r" / "results.json").read_text())
    assert list(results["codecs"]) == [str(one), str(two)]
    assert not any(about["stability"]["shares"] for about in results["codecs"].values())
    assert main([*arguments, "--codec", str(one), "--codec", str(one)]) == 2


def test_networks_judge_beside_the_metrics(corpus: Path) -> None:
    """One that needs no reference judges the recordings too; the others the codec alone."""

    class Loudness:
        column, needs_reference = Column("loudness", "loudness", None), False

        def __call__(self, reference: Tensor | None, estimate: Tensor, sampling_rate: int) -> float:
            return float(estimate.square().mean().sqrt())

    class Halved:
        column, needs_reference = Column("halved", "halved", None), True

        def __call__(self, reference: Tensor | None, estimate: Tensor, sampling_rate: int) -> float:
            assert reference is not None
            return float((estimate - 0.5 * reference).abs().max())

    utterances = open_corpus(corpus).split("validation")
    judges = [Loudness(), Halved()]
    for processes in (1, 2):
        with Scorer([], "none", processes, judges=judges, not_given={"opinion": "nobody asked"}) as scorer:
            result = evaluate([NamedCodec(CODEC, HalvingCodec())], utterances, scorer)
        assert result.systems == [RECORDING, VOCODER, CODEC] and result.skipped == {"opinion": "nobody asked"}
        loudness = {system: result.mean(system, "loudness")[0] for system in result.systems}
        assert loudness[RECORDING] == loudness[VOCODER] == pytest.approx(2 * loudness[CODEC], rel=1e-6)
        assert result.mean(CODEC, "halved") == (0, 2) and result.mean(RECORDING, "halved")[1] == 0


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--split", "test"], "has no test split: it has train (1), validation (3)"),
        (["--metrics=[mos]", "--asr", "none"], "no metric mos; there are log_mel_l1"),
        (["--limit", "0"], "limit is 0"),
        (["--stability", "-1"], "stability is -1"),
        (["--speaker_model", "/nowhere/at-all"], "cannot load the speaker model /nowhere/at-all"),
        (["--utmos", "/nowhere/utmos.pt"], "/nowhere/utmos.pt does not hold UTMOS"),
        (["--asr", "/nowhere/at-all"], "cannot load the speech recogniser /nowhere/at-all"),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_bad_input_is_one_line(
    flags: list[str],
    complaint: str,
    corpus: Path,
    codec_directory: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["evaluate-codec", str(corpus), "--codec", str(codec_directory), "--output", str(tmp_path)]
    assert main([*arguments, *flags]) == 2
    error = capsys.readouterr().err
    assert complaint in error.splitlines()[-1]


@pytest.mark.slow
def test_a_dead_worker_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with Scorer(["multi_resolution_stft"], asr="none", processes=2) as scorer:
        assert scorer._pool is not None
        scorer._pool.submit(__import__("os")._exit, 1)
        task = ScoringTask(tone(1.0, 100.0).numpy(), RATE, tone(1.0, 100.0).numpy())
        with pytest.raises(UserError, match="--processes 1"):
            list(scorer.run([(i, task) for i in range(20)]))


def test_odd_recordings_without_transcripts(codec_directory: Path, tmp_path: Path) -> None:
    """Silence, and less than a shift, spoil no result; error rates that nobody could measure are named."""
    (tmp_path / "corpus").mkdir()
    write_audio(tmp_path / "corpus" / "silent.wav", torch.zeros(RATE // 2), RATE)
    write_audio(tmp_path / "corpus" / "short.wav", tone(1.0, 120.0)[-200:], RATE)
    arguments = [
        "evaluate-codec",
        str(tmp_path / "corpus"),
        "--codec",
        str(codec_directory),
        "--split",
        "train",
    ]
    arguments += [
        "--output",
        str(tmp_path / "out"),
        "--processes",
        "1",
        "--stability",
        "2",
        "--device",
        "cpu",
    ]
    assert main([*arguments, "--metrics", "[log_mel_l1, multi_resolution_stft, stoi]"]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    found = results["systems"]["hh-codec-tiny"]
    assert found["log_mel_l1"]["utterances"] == 1  # the other has no frame
    assert found["multi_resolution_stft"]["utterances"] == 1  # the other has nothing to relate a distance to
    assert "no transcripts" in results["skipped"]["word and character error rate"]
    page = (tmp_path / "out" / "report.md").read_text()
    assert "Not measured: word and character error rate (" in page and "pocketsphinx, with" not in page
