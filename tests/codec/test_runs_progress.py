"""Progress: lines at a human pace away from a terminal, rates that leave out what was done before."""

import io

import pytest

from codec.foundation import Progress, duration
from codec.foundation import progress as progress_module


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def test_one_line_each_half_minute_and_one_at_the_end(clock: _Clock) -> None:
    stream = io.StringIO()
    with Progress(1000, label="tokenize", done_before=200, stream=stream) as progress:
        for _ in range(8):  # 80 s, 100 audio seconds in each 10 s
            clock.now += 10
            progress.update(100, note="kathleen.wav" if progress.done < 300 else "")
    assert stream.getvalue().splitlines() == [
        "tokenize: 500 of 1,000 audio s (50%), 10.0 audio s/s, 50 s left, kathleen.wav",
        "tokenize: 800 of 1,000 audio s (80%), 10.0 audio s/s, 20 s left, kathleen.wav",
        "tokenize: 800 audio s in 1 min 20 s, 10.0 audio s/s",
    ]


def test_the_first_step_makes_no_forecast(clock: _Clock) -> None:
    stream = io.StringIO()
    with Progress(1000, unit="s", done_before=500, stream=stream) as progress:
        for amount in (1, 9):
            clock.now += 31
            progress.update(amount)
    first, second, _ = stream.getvalue().splitlines()
    assert "left" not in first and "50 min 38 s left" in second


def test_without_a_total_there_is_no_time_left(clock: _Clock) -> None:
    stream = io.StringIO()
    with Progress(None, unit="files", stream=stream) as progress:
        clock.now += 31
        progress.update(62)
    assert stream.getvalue().splitlines()[0] == "62 files, 2.0 files/s"


def test_a_terminal_gets_a_bar(clock: _Clock) -> None:
    stream = _Terminal()
    with Progress(100, label="encode", stream=stream) as progress:
        clock.now += 2
        progress.update(50)
    last = stream.getvalue().rstrip("\n").split("\r")[-1]
    assert last.startswith("encode:  50%") and "50 of 100 audio s (50%), 25.0 audio s/s, 2 s left" in last


def test_only_the_first_process_speaks(monkeypatch: pytest.MonkeyPatch, clock: _Clock) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    stream = io.StringIO()
    with Progress(100, stream=stream) as progress:
        clock.now += 60
        progress.update(100)
    assert stream.getvalue() == "" and progress.done == 100


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.4, 59.4, 60, 200, 7500, 273600)] == [
        "0 s", "59 s", "1 min 0 s", "3 min 20 s", "2 h 5 min", "3 d 4 h",
    ]  # fmt: skip
