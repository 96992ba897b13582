"""bench: who is how much faster than whom, from times that are given; and the command on what is small."""

import json
import time
from pathlib import Path

import pytest
import torch

from recipes.benchmark.budgets import Budget, Measured, budgets
from recipes.benchmark.codecs import CodecTiming
from recipes.benchmark.report import tables
from recipes.benchmark.timing import Case, Timing, peak_memory, take_turns
from recipes.benchmark.tokenization import TokenizeMemory, TokenizeTiming
from recipes.cli import main

CPU = torch.device("cpu")


def timing(name: str, *seconds: float) -> Timing:
    return Timing(name, seconds, None)


def test_ratios_of_given_times() -> None:
    ours, theirs = timing("ours", 1.0, 4.0, 2.0), timing("theirs", 3.0, 8.0, 10.0)
    assert ours.fastest == 1.0 and ours.median == 2.0
    assert ours.faster_than(theirs) == 3.0
    assert ours.faster_round_by_round(theirs) == 3.0  # of 3, 2 and 5


def test_contestants_take_turns_and_the_warm_up_does_not_count() -> None:
    called: list[str] = []
    cases = [Case(name, lambda name=name: called.append(name)) for name in "ab"]
    timings = take_turns(cases, rounds=3, device=CPU, label="", warm_up=2)
    assert called == ["a", "b"] * 5
    assert {name: len(found.seconds) for name, found in timings.items()} == {"a": 3, "b": 3}


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
    return CodecTiming(name, "", 10.0, timing(name, encode), timing(name, decode))


def test_budgets_of_given_measurements() -> None:
    measured = Measured(
        codecs={
            "MimiModel": codec("MimiModel", 1.0, 1.0),
            "hh-codec": codec("hh-codec", 0.5, 20.0),
            "hh-codec-24hz-vocos": codec("hh-codec-24hz-vocos", 0.5, 0.25),
            "hh-codec-tiny": codec("hh-codec-tiny", 0.05, 0.05),
        },
        tokenize=TokenizeTiming("tiny", 60.0, timing("whole", 1.0, 1.25), timing("bare", 0.95, 1.15)),
        memory=TokenizeMemory("tiny", 600.0, 3 * 2**30),
    )
    rows = {row.what: row for row in budgets(measured)}
    assert (rows["hh-codec encode"].measured, rows["hh-codec encode"].passed) == (2.0, False)
    assert rows["hh-codec encode"].gap == pytest.approx(1.25)
    assert rows["hh-codec-24hz-vocos decode"].measured == 4.0 and rows["hh-codec-24hz-vocos decode"].passed
    assert rows["hh-codec-tiny encode + decode"].measured == pytest.approx(100.0)
    assert rows["tokenize end to end"].measured == pytest.approx(0.935)
    memory = rows["memory of tokenize, 3-hour file"]
    assert (memory.measured, memory.passed, memory.gap) == (
        3.0,
        False,
        1.5,
    ) and memory.note == "10 min of audio"
    assert rows["generation, codec included"].passed is None
    text = tables(measured, list(rows.values()))
    assert "misses by 1.25 ×" in text and "PASS" in text and "not measured" in text
    assert Budget("x", "", 1.0, 1.0).passed and Budget("x", "", 1.0, 1.0, at_most=True).passed


def test_the_command_times_what_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "--output", str(tmp_path), "--seconds", "0.5", "--rounds", "2", "--threads", "1"]
    assert main([*arguments, "--parts", "codecs", "--codecs", "hh-codec-tiny", "--device", "cpu"]) == 0
    results = json.loads((tmp_path / "bench.json").read_text())
    assert list(results["codecs"]) == ["hh-codec-tiny"] and results["threads"] == 1
    tiny = results["codecs"]["hh-codec-tiny"]
    assert len(tiny["encode"]["rounds"]) == 2 and tiny["encode"]["fastest_real_time"] > 0
    assert tiny["ratios"] == {}  # Mimi had no turn
    rows = {row["what"]: row for row in results["budgets"]}
    assert rows["hh-codec-tiny encode + decode"]["measured"] == pytest.approx(tiny["together_real_time"])
    assert rows["hh-codec encode"]["passed"] is None
    assert "hh-codec-tiny" in capsys.readouterr().out
    assert main([*arguments, "--codecs", "opus"]) == 2
    assert "no codec opus to time; there are MimiModel" in capsys.readouterr().err


def test_tokenize_beside_its_encoder(tmp_path: Path) -> None:
    arguments = ["bench", "--output", str(tmp_path), "--parts", "tokenize", "--quick", "--rounds", "1"]
    assert main([*arguments, "--threads", "1", "--device", "cpu"]) == 0
    results = json.loads((tmp_path / "bench.json").read_text())["tokenize"]
    assert results["audio_seconds"] == 60 and 0 < results["share"] < 2


@pytest.mark.slow
def test_memory_and_generation(tmp_path: Path) -> None:
    arguments = ["bench", "--output", str(tmp_path), "--parts", "memory", "--parts", "generation", "--quick"]
    assert main([*arguments, "--device", "cpu"]) == 0
    results = json.loads((tmp_path / "bench.json").read_text())
    assert 0.1 < results["tokenize_memory"]["peak_bytes"] / 2**30 < 2
    assert results["generation"]["real_time"] > 0
