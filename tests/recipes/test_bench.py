"""bench: who is how much faster than whom, from times that are given; and the command on what is small."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from recipes.benchmark.codecs import BigVGANTiming, CodecTiming, HybridTiming
from recipes.benchmark.generation import (
    GenerationTiming,
    GreedyTiming,
    StreamRound,
    StreamTiming,
    time_generation,
)
from recipes.benchmark.report import Budget, as_json, budgets, tables
from recipes.benchmark.run import Measured
from recipes.benchmark.timing import (
    Case,
    Pace,
    Runner,
    Stretch,
    Timing,
    peak_memory,
    race,
    take_turns,
)
from recipes.benchmark.tokenization import TokenizeMemory, TokenizeTiming
from recipes.benchmark.training import TrainingTiming
from recipes.cli.main import main
from tests.codec.small_codecs import small_codec

CPU = torch.device("cpu")


def timing(name: str, *seconds: float) -> Timing:
    return Timing(name, seconds, None)


def test_ratios_of_given_times() -> None:
    ours, theirs = timing("ours", 1.0, 4.0, 2.0), timing("theirs", 4.0, 8.0, 6.0)
    assert ours.fastest == 1.0 and ours.median == 2.0
    assert ours.faster_round_by_round(theirs) == 3.0  # of 4, 2 and 3; of the fastest rounds it would be 4
    tiny = CodecTiming("", 12.0, ours, theirs)
    mimi = CodecTiming("", 12.0, theirs, theirs)
    codecs = {"MimiModel": mimi, "hh-codec": tiny, "hh-codec-tiny": tiny}
    rows = {row.what: row.measured for row in budgets(Measured(codecs=codecs))}
    assert rows["hh-codec encode"] == 3.0
    assert rows["hh-codec-tiny encode + decode"] == 12.0 / (2.0 + 6.0)  # by the medians
    table = tables(Measured(codecs=codecs), []).splitlines()
    assert "| hh-codec |  | 6.0 × | 2.0 × | 3.00 × | 1.00 × |" in table[3]
    assert "the median over rounds of each round's own ratio" in "\n".join(table)
    ratios = as_json(Measured(codecs=codecs), [], {})["codecs"]["hh-codec"]["ratios"]
    assert ratios == {"encode": 3.0, "decode": 1.0}


def test_contestants_take_turns_and_the_warm_up_does_not_count() -> None:
    called: list[str] = []
    cases = [Case(name, lambda name=name: called.append(name)) for name in "ab"]
    timings = take_turns(cases, rounds=3, device=CPU, label="", warm_up=2)
    assert called == ["a", "b"] * 5
    assert {name: len(found.seconds) for name, found in timings.items()} == {"a": 3, "b": 3}


def test_a_race_goes_by_the_clocks_of_those_who_run() -> None:
    called: list[str] = []

    def runner(name: str, amounts: list[float], seconds: float) -> Runner:
        left = iter(amounts)

        def work() -> Stretch:
            called.append(name)
            return Stretch(next(left), seconds)

        return Runner(name, work)

    held: list[Tensor] = []

    def hungry() -> Stretch:  # what it takes at first stays; then it takes 64 MiB a turn
        held.append(torch.ones(2**20)) if not held else None
        taken = [torch.ones(2**12) for _ in range(2**12)]
        time.sleep(0.2)
        return Stretch(len(taken), 1.0)

    eating = race([Runner("hungry", hungry)], 1, CPU, "")["hungry"]
    assert eating.peak_bytes is None or 0.9 * 2**26 < eating.peak_bytes < 1.5 * 2**26
    runners = [runner("a", [99.0, 99.0, 4.0, 6.0, 20.0], 2.0), runner("b", [99.0, 99.0, 1.0, 3.0, 2.0], 1.0)]
    found = race(runners, 3, CPU, "")
    assert called == ["a", "b"] * 5  # a warm-up, a look at the memory, three rounds
    assert found["a"].rates == [2.0, 3.0, 10.0] and found["a"].median == 3.0
    assert found["a"].faster_round_by_round(found["b"]) == 2.0  # of 2, 1 and 5


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the kernel does not tell")
def test_peak_memory_is_that_of_the_call() -> None:
    size = 64 * 2**20
    before = torch.ones(2 * size, dtype=torch.uint8)  # taken before: does not count

    def work() -> None:
        held = [torch.ones(2**14, dtype=torch.uint8) for _ in range(size // 2**14)]
        time.sleep(0.2)
        del held

    # small pieces, freed: the C library keeps them for whoever asks next
    pieces = [torch.ones(2**14, dtype=torch.uint8) for _ in range(size // 2**14)]
    del pieces
    taken = peak_memory(work, CPU)
    assert taken is not None and 0.9 * size <= taken < 1.5 * size
    small = peak_memory(lambda: time.sleep(0.05), CPU)
    assert small is not None and small < size / 4
    del before


def codec(name: str, encode: float, decode: float) -> CodecTiming:
    return CodecTiming("", 10.0, timing(name, encode), timing(name, decode))


def test_budgets_of_given_measurements() -> None:
    measured = Measured(
        codecs={
            "MimiModel": codec("MimiModel", 1.0, 1.0),
            "hh-codec": codec("hh-codec", 0.5, 20.0),
            "hh-codec-24hz-vocos": codec("hh-codec-24hz-vocos", 0.5, 0.25),
            "hh-codec-tiny": codec("hh-codec-tiny", 0.05, 0.05),
        },
        tokenize=[TokenizeTiming("tiny", 60.0, timing("whole", 1.0, 1.25), timing("bare", 0.95, 1.15))],
        memory=TokenizeMemory("tiny", 3 * 3_600.0, 3 * 2**30),
    )
    rows = {row.what: row for row in budgets(measured)}
    assert (rows["hh-codec encode"].measured, rows["hh-codec encode"].passed) == (2.0, False)
    assert rows["hh-codec encode"].gap == pytest.approx(1.25)
    assert rows["hh-codec-24hz-vocos decode"].measured == 4.0 and rows["hh-codec-24hz-vocos decode"].passed
    assert rows["hh-codec-tiny encode + decode"].measured == pytest.approx(100.0)
    assert rows["tokenize end to end, tiny"].measured == pytest.approx(0.935)
    memory = rows["memory of tokenize, 3-hour file"]
    assert (memory.measured, memory.passed, memory.gap) == (
        3.0,
        False,
        1.5,
    ) and memory.note == "180 min of audio"
    assert rows["generation, codec included"].passed is None
    text = tables(measured, list(rows.values()))
    assert "misses by 1.25 ×" in text and "PASS" in text and "not measured" in text
    # ten minutes say nothing of three hours, well though they are kept
    part = {row.what: row for row in budgets(Measured({}, memory=TokenizeMemory("tiny", 600.0, 2**30)))}
    memory = part["memory of tokenize, 3-hour file"]
    assert (memory.measured, memory.passed, memory.gap) == (1.0, None, None)
    assert "| 1.00 | on 10 min |" in tables(Measured({}), [memory])
    entry = as_json(Measured({}), [memory], {})["budgets"][0]
    assert (entry["passed"], entry["instead"]) == (None, "on 10 min")
    assert Budget("x", "", 1.0, 1.0).passed and Budget("x", "", 1.0, 1.0, at_most=True).passed


def everything() -> Measured:
    """Times that are given."""
    greedy = GreedyTiming(100, timing("ours", 0.1, 0.2), timing("theirs", 0.25, 0.3), same=0.75)
    return Measured(
        codecs={},
        generation=GenerationTiming(
            "slm",
            parameters=1_000,
            rounds=(3.0, 5.0, 4.0),
            streams=(
                StreamTiming((StreamRound(0.9, 0.5, 5.0, 1.0), *[StreamRound(0.3, 0.5, 5.0, 1.0)] * 2)),
                StreamTiming((StreamRound(0.6, -0.1, 5.0, 6.0),) * 3),
            ),
            greedy=greedy,
        ),
        training=TrainingTiming(
            parameters=2_000_000,
            tokens_per_step=512,
            precision="bfloat16",
            ours=Pace("ours", (Stretch(600, 2.0), Stretch(500, 2.0))),
            transformers=Pace("theirs", (Stretch(600, 4.0), Stretch(400, 2.0))),
            fill=0.99,
            padded_fill=0.5,
        ),
        hybrid=HybridTiming(
            10.0,
            timing("ours", 1.0, 1.5),
            timing("teacher", 3.0, 3.0),
        ),
        bigvgan=BigVGANTiming(2.0, timing("ours", 1.0), timing("theirs", 1.5), difference=1e-7),
    )


def test_budgets_beside_others() -> None:
    measured = everything()
    rows = {row.what: row for row in budgets(measured)}
    found = {what: (row.measured, row.passed) for what, row in rows.items() if row.measured is not None}
    assert found == {
        "hybrid-codec encode": (2.5, False),  # of 3 and 2
        "BigVGAN v2": (1.5, True),
        "SLM training": (pytest.approx((2 + 1.25) / 2), True),
        "generation": (2.0, True),
        "generation, the same tokens as generate": (0.75, False),
        "generation, codec included": (4.0, True),
        "first audio of a stream": (0.6, False),  # the slowest text, not the slowest round
        "a stream ahead of its listener": (-0.1, False),  # the worst text
    }
    assert rows["a stream ahead of its listener"].gap is None  # no factor leads from below 0 to 0
    assert "the paper" in rows["hybrid-codec encode"].note and "0.125" in rows["hybrid-codec encode"].note
    json.dumps(as_json(measured, list(rows.values()), {}))
    assert "| misses |" in tables(measured, list(rows.values()))
    nothing = {row.what: row for row in budgets(Measured({}, skipped={"bigvgan": "it is not here"}))}
    assert nothing.keys() == rows.keys() and all(row.passed is None for row in nothing.values())
    assert nothing["BigVGAN v2"].note == "it is not here"


class Speaker:
    """Speaks faster every round, each text as long as it is."""

    def __init__(self) -> None:
        self.model = torch.nn.Linear(2, 2)
        self.said: list[str] = []

    def warm_up(self) -> None:
        pass

    def speak(self, text: str, seed: int) -> Any:
        self.said.append(text)
        computing = [2.0, 1.0, 0.5][self.said.count(text) - 1]
        return SimpleNamespace(seconds=2.0, generation_seconds=computing / 2, decoding_seconds=computing / 2)

    def stream(self, text: str, seed: int) -> Any:
        self.said.append(f"stream of {text}")
        first = [0.5, 0.1, 0.2][self.said.count(f"stream of {text}") - 1] * (1 + seed)

        class Stream:
            first_audio_seconds, smallest_lead, seconds, working_seconds = first, 1.0, 2.0, 1.0

            def __iter__(self) -> Any:
                return iter([])

        return Stream()


def test_speaking_has_rounds_too(monkeypatch: pytest.MonkeyPatch) -> None:
    speaker = Speaker()
    monkeypatch.setattr("recipes.benchmark.generation.SpeechLM.from_pretrained", lambda *_, **__: speaker)
    monkeypatch.setattr("recipes.benchmark.generation._time_greedy", lambda *_: None)
    found = time_generation("a model", tokens=3, rounds=3, device="cpu")
    assert found.rounds == (1.0, 2.0, 4.0) and found.real_time == 2.0
    assert len(found.streams) == 4 and all(len(stream.rounds) == 3 for stream in found.streams)
    assert [stream.first_audio for stream in found.streams] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert found.first_audio == pytest.approx(0.8)  # the slowest text, by the median of its rounds


def test_the_command_times_what_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "--output", str(tmp_path), "--seconds", "0.5", "--rounds", "2", "--threads", "1"]
    assert main([*arguments, "--parts", "codecs", "--codecs", "hh-codec-tiny", "--device", "cpu"]) == 0
    results = json.loads((tmp_path / "bench.json").read_text())
    assert list(results["codecs"]) == ["hh-codec-tiny"] and results["threads"] == 1
    assert results["command"].startswith("codec-slm") and len(results["date"]) == 10 and results["device"]
    tiny = results["codecs"]["hh-codec-tiny"]
    assert len(tiny["encode"]["rounds"]) == 2 and tiny["encode"]["fastest_real_time"] > 0
    assert tiny["ratios"] == {}  # Mimi had no turn
    rows = {row["what"]: row for row in results["budgets"]}
    assert rows["hh-codec-tiny encode + decode"]["measured"] == pytest.approx(tiny["together_real_time"])
    assert rows["hh-codec encode"]["passed"] is None
    assert "hh-codec-tiny" in capsys.readouterr().out
    assert main([*arguments, "--codecs", "opus"]) == 2
    assert "no codec opus to time; there are MimiModel" in capsys.readouterr().err


def test_tokenize_beside_its_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the presets at a width that takes less time
    monkeypatch.setattr(
        "recipes.benchmark.tokenization.preset_or_bundled", lambda name, device: small_codec(name)
    )
    arguments = ["bench", "--output", str(tmp_path), "--parts", "tokenize", "--quick", "--rounds", "1"]
    assert main([*arguments, "--threads", "1", "--device", "cpu"]) == 0
    results = json.loads((tmp_path / "bench.json").read_text())
    assert [entry["codec"] for entry in results["tokenize"]] == ["hh-codec", "hh-codec-tiny"]
    assert all(entry["audio_seconds"] >= 20 and 0 < entry["share"] < 2 for entry in results["tokenize"])
    assert [row["what"] for row in results["budgets"] if row["measured"]] == [
        "tokenize end to end, hh-codec", "tokenize end to end, hh-codec-tiny",
    ]  # fmt: skip


def test_what_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipes.benchmark.run.bigvgan_is_installed", lambda: False)
    assert main(["bench", "--output", str(tmp_path), "--parts", "bigvgan", "--device", "cpu"]) == 0
    assert "Not measured: bigvgan (the package bigvgan" in (tmp_path / "bench.md").read_text()


@pytest.mark.slow
def test_memory_and_generation(tmp_path: Path) -> None:
    arguments = ["bench", "--output", str(tmp_path), "--parts", "memory", "--parts", "generation", "--quick"]
    assert main([*arguments, "--device", "cpu"]) == 0
    results = json.loads((tmp_path / "bench.json").read_text())
    assert 0.1 < results["tokenize_memory"]["peak_bytes"] / 2**30 < 2
    assert results["generation"]["real_time"] > 0
