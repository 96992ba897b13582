"""evaluate-slm: sums and rates by hand, bits against a loop, and the command on an untrained model."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from codec.foundation import UserError
from codec.metrics import EditCounts, wilson_interval
from data import Utterance, Word, align_corpus, open_corpus, read_audio, write_audio
from data.alignment import Alignment
from recipes.cli.main import main
from recipes.evaluation.sentences import References, Sentence, read_sentences
from recipes.evaluation.slm_evaluation import REFERENCE, SLMEvaluation, SpokenRow, measure_parts
from recipes.evaluation.slm_report import reading_table, summary
from slm.evaluation.likelihood import SpokenText, bits_for, in_own_format
from slm.evaluation.metrics import SpokenSentence, summarize_speech
from slm.generation.speech_lm import SpeechLM
from slm.models.checkpoint import SpeechCapabilities
from tests.recipes.untrained_models import save_codec, save_slm

RATE = 24_000


def test_summary_of_sentences_by_hand() -> None:
    sentences = [
        SpokenSentence(2.0, True, 0.5, 2.0, EditCounts(1, 0, 0, 4), EditCounts(2, 1, 0, 20)),
        SpokenSentence(6.0, True, 0.5, 2.0, EditCounts(0, 1, 1, 6), EditCounts(0, 0, 3, 20)),
        SpokenSentence(4.0, False, 1.0, 4.0, EditCounts(0, 0, 0, 2), EditCounts(0, 0, 0, 10)),
    ]
    summary = summarize_speech(sentences)
    assert summary.word_error_rate.value == 3 / 12 and summary.character_error_rate.value == 6 / 50
    assert summary.ended.value == pytest.approx(2 / 3)
    assert summary.plausible == pytest.approx(1 / 3)  # one is too long, one was cut
    assert (summary.shortest_ratio, summary.duration_ratio, summary.longest_ratio) == (1.0, 1.0, 3.0)
    assert summary.real_time == 12.0 / 2.0
    alone = summarize_speech([SpokenSentence(1.0, True, 0.0)])
    assert math.isnan(alone.word_error_rate.value) and math.isnan(alone.duration_ratio)
    assert math.isnan(alone.plausible) and math.isnan(alone.real_time)
    # of three with a reference one ended at a plausible length
    assert summary.at_length == wilson_interval(1, 3) and math.isnan(alone.at_length.value)


def test_sentences_and_their_references(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("Hello there.\n\n  It rains. \n")
    assert read_sentences(tmp_path / "lines.txt") == [
        Sentence("0001", "Hello there."),
        Sentence("0003", "It rains."),
    ]
    (tmp_path / "rows.jsonl").write_text('{"id": "a", "text": "Hello"}\n{"text": "It rains"}\n')
    assert [s.id for s in read_sentences(tmp_path / "rows.jsonl")] == ["a", "0002"]
    (tmp_path / "bad.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(UserError, match=r"bad.jsonl, line 1: expected an object"):
        read_sentences(tmp_path / "bad.jsonl")
    (tmp_path / "empty.txt").write_text("\n")
    for name, complaint in [("empty.txt", "holds no sentence"), ("none.txt", "no such file")]:
        with pytest.raises(UserError, match=complaint):
            read_sentences(tmp_path / name)
    references = References(
        [
            Utterance("1", "a.wav", text="hello, THERE", speaker="slt"),
            Utterance("2", "b.wav", text="Hello there!", speaker="rms"),
            Utterance("3", "c.wav"),
        ]
    )
    assert references.find("Hello there.", "rms").id == "2"
    assert references.find("Hello there.", "kathleen").id == "1"
    assert references.find("It rains.", "slt") is None


def speech(seconds: float, pitch: float) -> torch.Tensor:
    times = np.arange(int(seconds * RATE)) / RATE
    source = sum(np.cos(2 * np.pi * pitch * k * times) / k for k in range(1, 30))
    return torch.from_numpy(0.1 * source * np.clip(np.sin(2 * np.pi * 2 * times), 0, 1)).float()


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model over characters, with two voices, and an untrained codec beside it."""
    folder = tmp_path_factory.mktemp("an untrained model")
    capabilities = SpeechCapabilities(formats=["tts", "asr"], seconds_per_character=[0.04, 0.06, 0.1])
    return save_slm(folder / "slm", save_codec(folder / "codec"), ["slt", "rms"], capabilities)


def test_bits_are_those_of_every_token_by_itself(model_directory: Path) -> None:
    language_model = SpeechLM.from_pretrained(model_directory)
    vocabulary = language_model.vocabulary
    rng = np.random.default_rng(0)
    recordings = [
        SpokenText(rng.integers(0, 2_048, 30).astype(np.uint16), "Hello there.", "rms"),
        SpokenText(rng.integers(0, 2_048, 17).astype(np.uint16), "It rains", "nobody"),
    ]
    bits = bits_for(language_model, recordings)

    text_bits, speech_bits, text_bytes = 0.0, 0.0, 0
    for recording in recordings:
        tag = [vocabulary.voices[recording.speaker]] if recording.speaker in vocabulary.voices else []
        text = vocabulary.encode_text(recording.text).tolist()
        tokens = [*tag, vocabulary.text_id, *text, vocabulary.speech_id]
        spoken = vocabulary.codes_to_ids(recording.codes).tolist()
        with torch.no_grad():
            logits = language_model.model(torch.tensor([[*tokens, *spoken]])).logits[0].log_softmax(-1)
        for place, token in enumerate([*tokens, *spoken][1:]):
            cost = -float(logits[place, token]) / math.log(2)
            text_bits += cost if len(tag) <= place < len(tag) + len(text) else 0
            speech_bits += cost if place >= len(tokens) - 1 else 0
        text_bytes += len(recording.text.encode())
    assert bits["text/bits_per_byte"] == pytest.approx(text_bits / text_bytes, rel=1e-4)
    assert bits["speech/bits_per_token"] == pytest.approx(speech_bits / 47, rel=1e-4)
    assert bits["speech/bits_per_second"] == pytest.approx(24 * speech_bits / 47, rel=1e-4)


def test_bits_are_of_recordings_that_can_be_put_as_the_model_speaks(tmp_path: Path) -> None:
    """Without word times there is no aligned document: another kind, which the model never saw, says nothing."""
    slm = save_slm(
        tmp_path / "slm", save_codec(tmp_path / "codec"), ["slt"], SpeechCapabilities(["aligned"], 2)
    )
    language_model = SpeechLM.from_pretrained(slm)
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 2_048, frames).astype(np.uint16) for frames in (30, 30, 600, 0, 30)]
    words = [("It", 0.0, 0.5), ("rains", 0.5, 1.2)]
    placed, unplaced, long, empty, mute = [
        SpokenText(codes[0], "It rains", "slt", words),
        SpokenText(codes[1], "It rains", "slt"),
        SpokenText(codes[2], "It rains", "slt", words),
        SpokenText(codes[3], "It rains", "slt", words),
        SpokenText(codes[4], "", "slt", []),
    ]
    assert in_own_format(language_model, [unplaced, placed, long, empty, mute, placed]) == [1, 5]
    assert bits_for(language_model, [unplaced, placed, long, mute]) == bits_for(language_model, [placed])
    assert bits_for(language_model, [unplaced]) == bits_for(language_model, []) == {}


def test_the_model_is_compared_on_the_same_sentences() -> None:
    def row(identity: str, system: str, errors: int, audio: str | None) -> SpokenRow:
        spoken = SpokenSentence(1.0, True, 0.5, words=EditCounts(errors, 0, 0, 10))
        return SpokenRow(Sentence(identity, "text"), system, None, spoken, audio=audio)

    rows = [row("a", REFERENCE, 1, None), row("a", "model", 2, "a.wav"), row("b", "model", 8, "b.wav")]
    partial = SLMEvaluation(rows, unreferenced=["b"])
    assert partial.summary("model").word_error_rate.value == 0.5
    assert list(partial.compared) == ["model"]
    assert partial.compared["model"].word_error_rate.value == 0.2 and partial.compared["model"].sentences == 1
    table = str(reading_table(summary(partial, {}))).splitlines()
    assert [line.split(" | ")[:2] for line in table[2:]] == [
        ["| reference recordings", "1"],
        ["| model", "2"],
        ["| model, sentences with a reference", "1"],
    ]
    assert "| 20.0 % |" in table[4]  # of one sentence there is no interval
    assert (
        SLMEvaluation(rows[:2]).compared == {} and SLMEvaluation(rows, unreferenced=["a", "b"]).compared == {}
    )


def test_parts_that_fail_take_nothing_with_them() -> None:
    def fail(_: SLMEvaluation) -> SLMEvaluation:
        raise UserError("nothing there")

    def succeed(so_far: SLMEvaluation) -> SLMEvaluation:
        return replace(so_far, bits={"x": so_far.bits.get("x", 0.0) + 1.0})

    start = SLMEvaluation(skipped={"UTMOS": "no weights"})
    states = list(measure_parts(start, {"a": fail, "b": succeed, "c": fail, "d": succeed}))
    assert [state.unfinished for state in states] == [["c", "d"], ["d"], []]
    assert states[-1].bits == {"x": 2.0}
    assert states[-1].skipped == {"UTMOS": "no weights", "a": "nothing there", "c": "nothing there"}
    with pytest.raises(UserError, match="nothing there; nothing there"):
        list(measure_parts(start, {"a": fail, "c": fail}))


class Parrot:
    """Hears everything as the same words; pocketsphinx takes its time over noise."""

    name = "parrot"
    writes_digits = False

    def transcribe(self, waveform: torch.Tensor, sampling_rate: int) -> str:
        return "hello there"


def test_the_command_on_an_untrained_model(
    model_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recipes.evaluation.scoring.open_recognizer", lambda *_: Parrot())
    (tmp_path / "sentences.txt").write_text("Hello there.\nIt rains.\nNobody says this.\n")
    manifest = []
    for i, (text, speaker) in enumerate(
        [("Hello there.", "slt"), ("Hello there.", "rms"), ("It rains", "slt")]
    ):
        write_audio(tmp_path / f"{i}.wav", speech(1.0 + 0.5 * i, 100.0 + 30 * i), RATE)
        manifest.append(json.dumps({"id": f"r{i}", "audio": f"{i}.wav", "text": text, "speaker": speaker}))
    (tmp_path / "manifest.jsonl").write_text("\n".join(manifest) + "\n")
    output = tmp_path / "what it said"
    arguments = [
        "evaluate-slm",
        "--sentences",
        str(tmp_path / "sentences.txt"),
        "--model",
        str(model_directory),
    ]
    arguments += ["--output", str(output), "--references", str(tmp_path / "manifest.jsonl")]
    pair = {"good": [1, 2, 3], "bad": [4, 5]}
    (tmp_path / "plain.jsonl").write_text("\n".join([json.dumps(pair | {"category": c}) for c in "xxy"]))
    arguments += ["--pairs", str(tmp_path / "plain.jsonl")]
    # DNSMOS takes its time, and is no other for being called from here
    assert main([*arguments, "--processes", "1", "--asr", "some/parrot", "--metrics", "[prosody]"]) == 0
    assert str(output / "report.md") in capsys.readouterr().out

    results = json.loads((output / "results.json").read_text())
    systems = ["reference recordings", "references through the codec", "model, voice slt", "model, voice rms"]
    assert list(results["systems"]) == systems
    # of "hello there", "it rains" and "nobody says this": 0, 2 and 3 errors in 7 words
    rates = [results["systems"][system]["word_error_rate"]["value"] for system in systems]
    assert rates == pytest.approx([2 / 6, 2 / 6, 5 / 7, 5 / 7])
    assert results["without_reference"] == ["0003"]
    assert set(results["bits"]) >= {"text/bits_per_byte", "speech/bits_per_token", "speech/bits_per_second"}
    # an untrained model knows nothing: about log2 of its vocabulary for every token
    assert results["bits"]["speech/bits_per_token"] == pytest.approx(math.log2(2_500), abs=1.5)

    rows = pd.read_parquet(output / "sentences.parquet").set_index(["system", "id"])
    assert rows.loc[("model, voice slt", "0001"), "reference_seconds"] == pytest.approx(1.0)
    assert rows.loc[("model, voice rms", "0001"), "reference_seconds"] == pytest.approx(1.5)
    assert rows.loc[("model, voice rms", "0002"), "reference_seconds"] == pytest.approx(
        2.0
    )  # said by slt alone
    assert list(rows.loc["references through the codec"].seconds) == [1.0, 2.0, 1.5]
    # what is said of the recordings and the codec is said of the model, and the other way about
    measured = ["characters_a_second", "sounding_seconds", "f0_spread_semitones", "energy_range_db"]
    assert set(measured) <= set(rows.columns)
    recorded = rows.loc[("reference recordings", "0001")]
    assert recorded.sounding_seconds.tolist() == pytest.approx([1.0, 1.5], abs=0.3)
    assert (recorded.characters_a_second * recorded.sounding_seconds).tolist() == pytest.approx([11, 11])
    assert recorded.f0_spread_semitones.max() < 0.5  # of a voice at one pitch
    assert recorded.repeated.isna().all() and rows.loc["references through the codec"].repeated.notna().all()
    spoken = rows.loc["model, voice rms"]
    assert len(spoken) == 3 and all((output / path).is_file() for path in spoken.audio)
    assert results["pairs"]["plain"]["pairs"] == 3  # all the same, so all right or all wrong
    assert results["pairs"]["plain"]["total"]["value"] in (0.0, 1.0)
    assert [results["pairs"]["plain"]["categories"][name]["pairs"] for name in "xy"] == [2, 1]
    assert len(pd.read_parquet(output / "pairs.parquet")) == 3
    page = (output / "report.md").read_text()
    assert "| plain | 3 |" in page
    assert "the ceiling" in page and "1 sentences have no reference" in page
    assert [results["systems"][system]["sentences"] for system in systems] == [3, 3, 3, 3]
    # the model on the sentences of the recordings: 0 and 2 errors in 4 words
    compared = results["with_reference"]["model, voice slt"]
    assert compared["sentences"] == 2 and compared["word_error_rate"]["value"] == 0.5
    assert "model, voice slt, sentences with a reference" in page
    assert 0 <= results["systems"]["model, voice slt"]["at_length"]["low"] < 1
    assert "beside 1 sentences: none of the recordings" in page and "There are but 3 sentences" in page
    assert results["unfinished"] == [] and results["bits_of"] == 3


class EvenAligner:
    """Words share the recording evenly."""

    in_processes, name, sampling_rate, rejects_low_scores = True, "even", RATE, False

    def align(self, utterance: Utterance, blocks: Iterator[torch.Tensor]) -> Alignment:
        words = (utterance.text or "").split()
        each = sum(map(len, blocks)) / RATE / len(words)
        return Alignment(
            tuple(Word(word, number * each, (number + 1) * each) for number, word in enumerate(words)), -1.0
        )


@pytest.mark.usefixtures("undrawn")
def test_gain_and_word_times_of_references(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Quiet recordings with gain are the loud ones; an alignment gives a model its own documents of them."""
    slm = save_slm(
        tmp_path / "slm", save_codec(tmp_path / "codec"), ["slt"], SpeechCapabilities(["aligned"], 2)
    )
    (tmp_path / "sentences.txt").write_text("It rains.\n")
    quiet_sound = 0.25 * speech(1.2, 120.0)
    for name, factor in (("quiet", 1.0), ("loud", 2.0)):
        (tmp_path / name).mkdir()
        write_audio(tmp_path / name / "a.wav", factor * quiet_sound, RATE)
        quiet_sound = read_audio(tmp_path / name / "a.wav", RATE)  # as it was rounded
        entry = {"id": "a", "audio": "a.wav", "text": "It rains.", "speaker": "slt", "split": "validation"}
        (tmp_path / name / "manifest.jsonl").write_text(json.dumps(entry) + "\n")
    align_corpus(
        open_corpus(tmp_path / "quiet" / "manifest.jsonl"), EvenAligner(), tmp_path / "times", workers=1
    )

    def results(name: str, *more: str) -> dict[str, Any]:
        references = ["--references", str(tmp_path / name / "manifest.jsonl")]
        arguments = ["evaluate-slm", "--model", str(slm), "--sentences", str(tmp_path / "sentences.txt")]
        arguments += [
            "--output",
            str(tmp_path / "out"),
            *references,
            "--asr",
            "none",
            "--metrics",
            "[]",
            *more,
        ]
        assert main(arguments) == 0
        return dict(json.loads((tmp_path / "out" / "results.json").read_text()))

    without = results("quiet")
    assert without["bits"] == {} and without["bits_of"] == 0
    assert "words without times (--alignment)" in without["skipped"]["bits of 1 of 1 references"]
    times = ["--alignment", str(tmp_path / "times")]
    quiet, doubled, loud = (
        results("quiet", *times),
        results("quiet", *times, "--gain", "2"),
        results("loud", *times),
    )
    key = "speech/bits_per_token"
    assert quiet["bits_of"] == 1 and doubled["gain"] == 2.0
    assert doubled["bits"][key] == loud["bits"][key] != quiet["bits"][key]


@pytest.mark.usefixtures("undrawn")
def test_what_was_measured_is_kept(
    model_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sentences.txt").write_text("...\nHello there.\n")
    (tmp_path / "pairs.jsonl").write_text(
        '{"good": [1, 2], "bad": [2, 1]}\n{"id": "far", "good": "missing.wav", "bad": [1, 2]}\n'
    )
    (tmp_path / "none.jsonl").write_text('{"good": "missing.wav", "bad": [1, 2]}\n')
    output = tmp_path / "out"
    arguments = [
        "evaluate-slm",
        "--model",
        str(model_directory),
        "--output",
        str(output),
        "--voices",
        "[slt]",
    ]
    arguments += ["--sentences", str(tmp_path / "sentences.txt"), "--asr", "none", "--metrics", "[]"]
    # nothing is spoken for a test that has nothing to compare
    assert main([*arguments, "--pairs", str(tmp_path / "none.jsonl")]) == 2
    assert "no pair can be compared" in capsys.readouterr().err and not (output / "audio").exists()

    assert main([*arguments, "--pairs", str(tmp_path / "pairs.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert "left out: 1 pairs of pairs" in shown and "left out: 1 sentences and references" in shown
    results = json.loads((output / "results.json").read_text())
    assert results["pairs"]["pairs"]["pairs"] == 1 and list(results["pairs"]["pairs"]["failures"]) == ["far"]
    assert results["systems"]["model, voice slt"]["sentences"] == 1
    assert list(results["failures"]) == ["sentence 0001 in voice slt"]
    # nothing stands beside what the model reads, and the page says so
    (beside,) = (name for name in results["skipped"] if "ceiling" in name)
    assert results["skipped"][beside] == "no recordings of the sentences: --references"
    page = (output / "report.md").read_text()
    assert f"{beside}: no recordings" in page and "pairs: 1 pairs left out, the first far" in page

    # killed, or worse, in a later part: what came before is there
    def die(*_: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr("slm.evaluation.pairs.evaluate_pairs", die)
    arguments[arguments.index(str(output))] = str(tmp_path / "killed")
    with pytest.raises(RuntimeError, match="no memory"):
        main([*arguments, "--pairs", str(tmp_path / "pairs.jsonl")])
    results = json.loads((tmp_path / "killed" / "results.json").read_text())
    assert list(results["systems"]) == ["model, voice slt"] and results["unfinished"] == ["pairs of pairs"]
    assert "pairs of pairs: still to be done" in (tmp_path / "killed" / "report.md").read_text()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--pairs", "x", "--text_lm", "gpt2"], "--text_lm does nothing without --continuations"),
        (["--pairs", "x", "--references", "x"], "--references does nothing without --sentences"),
        (["--sentences", "x", "--alignment", "x"], "--alignment does nothing without --references"),
    ],
)
def test_flags_that_would_do_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], complaint: str
) -> None:
    assert main(["evaluate-slm", "--output", str(tmp_path / "out"), *flags]) == 2
    assert complaint in capsys.readouterr().err


def test_a_voice_that_is_not_there(
    model_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sentences.txt").write_text("Hello.\n")
    arguments = [
        "evaluate-slm",
        "--sentences",
        str(tmp_path / "sentences.txt"),
        "--model",
        str(model_directory),
    ]
    arguments += ["--output", str(tmp_path / "out"), "--asr", "none", "--voices", "[kathleen]"]
    assert main(arguments) == 2
    assert "no voice 'kathleen'; it has: slt, rms" in capsys.readouterr().err


def test_pairs_alone(model_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ones.jsonl").write_text('{"good": [1, 2], "bad": [1, 2]}\n')
    (tmp_path / "twos.jsonl").write_text('{"good": [1, 2], "bad": [1, 2]}\n')
    output = tmp_path / "out"
    arguments = ["evaluate-slm", "--model", str(model_directory), "--output", str(output)]
    tests = ["--pairs", str(tmp_path / "ones.jsonl"), "--pairs", str(tmp_path / "twos.jsonl")]
    assert main([*arguments, *tests]) == 0
    assert "| ones | 1 | 50.0 %" in capsys.readouterr().out  # the same recording twice: nobody can tell
    assert set(json.loads((output / "results.json").read_text())["pairs"]) == {"ones", "twos"}
    assert not (output / "sentences.parquet").exists() and "reading" not in (output / "report.md").read_text()
    assert main(arguments) == 2
    assert "nothing to evaluate: give --sentences" in capsys.readouterr().err


def test_tests_of_one_name_stay_two(model_directory: Path, tmp_path: Path) -> None:
    tests = []
    for folder, pairs in (("lexical", 1), ("syntactic", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "dev.jsonl").write_text('{"good": [1, 2], "bad": [2, 1]}\n' * pairs)
        tests += ["--pairs", str(tmp_path / folder / "dev.jsonl")]
    output = tmp_path / "out"
    assert main(["evaluate-slm", "--model", str(model_directory), "--output", str(output), *tests]) == 0
    results = json.loads((output / "results.json").read_text())
    assert {name: test["pairs"] for name, test in results["pairs"].items()} == {
        "lexical/dev": 1,
        "syntactic/dev": 2,
    }
    assert set(pd.read_parquet(output / "pairs.parquet").test) == {"lexical/dev", "syntactic/dev"}
    assert results["not_trained_on"] == []


def test_speech_alone_may_be_strange(tmp_path: Path) -> None:
    slm = save_slm(tmp_path / "slm", save_codec(tmp_path / "codec"), ["slt"], SpeechCapabilities(["tts"]))
    (tmp_path / "dev.jsonl").write_text('{"good": [1, 2], "bad": [2, 1]}\n')
    output = tmp_path / "out"
    arguments = [
        "evaluate-slm",
        "--model",
        str(slm),
        "--output",
        str(output),
        "--pairs",
        str(tmp_path / "dev.jsonl"),
    ]
    assert main(arguments) == 0
    assert json.loads((output / "results.json").read_text())["not_trained_on"] == ["speech alone"]
    assert "speech without its text is strange to it" in (output / "report.md").read_text()
