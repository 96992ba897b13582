"""A polite stop: the signal is noticed, the step is finished, and all processes agree."""

import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch

from codec.foundation import StopSignal

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
    """`reduce` sums the flags of all processes; only the third of four was asked."""
    stops = [StopSignal() for _ in range(4)]
    stops[2].requested = True
    total = torch.tensor([float(sum(stop.requested for stop in stops))])
    accelerator = SimpleNamespace(num_processes=4, device="cpu", reduce=lambda flag, reduction: total)
    assert [stop.agreed(accelerator) for stop in stops] == [True] * 4  # type: ignore[arg-type]
    alone = SimpleNamespace(num_processes=1)
    assert [stop.agreed(alone) for stop in stops] == [False, False, True, False]  # type: ignore[arg-type]
