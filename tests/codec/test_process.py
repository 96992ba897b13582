"""A command's process: its place under each launcher, signals that stop it, the progress that it shows."""

import io
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from codec.foundation import Progress, StopSignal, UserError, duration, local_rank, rank, world_size
from codec.foundation import process as process_module

_VARIABLES = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "SLURM_PROCID",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_NTASKS",
    "SLURM_LOCALID",
)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (0, 1, 0)),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, (3, 8, 1)),
        ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "16", "SLURM_LOCALID": "2"}, (5, 16, 2)),
        # One process in an sbatch script of a job of eight tasks: nobody else is running.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, (0, 1, 0)),
        # torchrun on two machines, itself started by srun as task 1 of 2.
        (
            {
                "RANK": "6",
                "WORLD_SIZE": "8",
                "LOCAL_RANK": "2",
                "SLURM_PROCID": "1",
                "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_LOCALID": "0",
            },
            (6, 8, 2),
        ),
    ],
    ids=["none", "torchrun", "srun", "sbatch", "torchrun under srun"],
)
def test_launchers(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: tuple[int, int, int]
) -> None:
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (rank(), world_size(), local_rank()) == expected


def test_contradictions_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="process 2 of 2"):
        rank()
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UserError, match="WORLD_SIZE is 'two'"):
        world_size()


_LOOP = """
import sys, time
from codec.foundation import StopSignal

with StopSignal() as stop:
    print("ready", flush=True)
    while not stop.requested:
        time.sleep(0.01)
    print("asked", flush=True)
    time.sleep(float(sys.argv[1]))  # the rest of the step, and its checkpoint
    print("saved", flush=True)
print("after", flush=True)
"""


def _asked(number: signal.Signals, seconds_of_the_step: float) -> subprocess.Popen[str]:
    """A loop that has just taken in a signal."""
    command = [sys.executable, "-c", _LOOP, str(seconds_of_the_step)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.readline() == "asked\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_step_finish(number: signal.Signals) -> None:
    process = _asked(number, seconds_of_the_step=0.2)
    output, errors = process.communicate(timeout=100)
    assert (output, process.returncode) == ("saved\nafter\n", 0), errors


def test_a_second_ctrl_c_does_not_wait() -> None:
    process = _asked(signal.SIGINT, seconds_of_the_step=1000)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=100)
    assert "saved" not in output and "KeyboardInterrupt" in errors and process.returncode != 0


def test_handlers_are_put_back() -> None:
    former = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopSignal() as stop:
        assert signal.getsignal(signal.SIGTERM) == stop._handle
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == former


def test_in_another_thread_it_never_asks_and_does_not_fail() -> None:
    seen: list[bool] = []

    def work() -> None:
        with StopSignal() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_one_process_that_was_asked_stops_all() -> None:
    """Accelerate shares the triggers of all processes; only the third of four was asked."""
    stops = [StopSignal() for _ in range(4)]
    stops[2].requested = True
    triggers: list[int] = []

    def several(process: int) -> SimpleNamespace:
        return SimpleNamespace(
            num_processes=4,
            set_trigger=lambda: triggers.append(process),
            check_trigger=lambda: True,  # what the third process has set
        )

    assert [stop.agreed(several(process)) for process, stop in enumerate(stops)] == [True] * 4
    assert triggers == [2]
    alone = SimpleNamespace(num_processes=1)
    assert [stop.agreed(alone) for stop in stops] == [False, False, True, False]


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
    monkeypatch.setattr(process_module, "time", clock)
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
