"""The process of a command: its place among the launched ones, signals that stop it, progress, memory.

`accelerate launch` and `torchrun` set RANK, WORLD_SIZE and LOCAL_RANK; `srun` sets the names of its job step. Nothing
but these variables is read: no process group is made, so nothing can time out.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing.context import ForkServerContext
from types import FrameType, TracebackType
from typing import Any, Self, TextIO

from tqdm import tqdm

from codec.foundation.errors import UserError

# SLURM_NTASKS is not used: inside an sbatch script it counts the whole job although one process runs.
_RANK = ("RANK", "SLURM_PROCID")
_WORLD_SIZE = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_LOCAL_RANK = ("LOCAL_RANK", "SLURM_LOCALID")


def rank() -> int:
    """Number of this process among all processes, from 0; 0 without a launcher.

    Raises UserError when the launcher's variables contradict each other.
    """
    number, count = _read(_RANK, 0), world_size()
    if not 0 <= number < count:
        raise UserError(
            f"the launcher says process {number} of {count}: "
            "set RANK and WORLD_SIZE together, or unset both to run as one process"
        )
    return number


def world_size() -> int:
    """Number of processes in this launch; 1 without a launcher."""
    return _read(_WORLD_SIZE, 1)


def local_rank() -> int:
    """Number of this process on its own machine, from 0; 0 without a launcher."""
    return _read(_LOCAL_RANK, 0)


def worker_context(module: str) -> ForkServerContext:
    """Processes forked from one that has imported `module`, and has no threads and no GPU as this one may have.

    They start at once, and share the memory of what is imported.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    return context


def _read(names: tuple[str, str], default: int) -> int:
    torch_name, slurm_name = names
    # Never mix the two: torchrun under srun sets its own variables, and only those describe this process.
    if "RANK" in os.environ or "WORLD_SIZE" in os.environ:
        name = torch_name
    elif "SLURM_STEP_NUM_TASKS" in os.environ:
        name = slurm_name
    else:
        return default
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise UserError(f"the environment variable {name} is {text!r}, not a whole number") from None


_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """Context manager in which the first SIGTERM or SIGINT only sets a flag; the training loop reads it after a step.

    A second SIGINT is the usual KeyboardInterrupt. Outside the main thread, where Python does not allow handlers,
    signals keep their meaning.
    """

    def __init__(self) -> None:
        self.requested = False  # True once this process has been asked to stop
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def agreed(self, accelerator: Any) -> bool:
        """True on every process of an `accelerate.Accelerator` as soon as one of them was asked to stop.

        With several processes this is a collective operation: all must call it at the same step.
        """
        if accelerator.num_processes == 1:
            return self.requested
        if self.requested:
            accelerator.set_trigger()
        return bool(accelerator.check_trigger())

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


_LINE_EVERY_SECONDS = 30.0
_SHARE_FOR_A_FORECAST = 0.01  # of the total: the first step of anything is slow


class Progress:
    """Shows an amount growing to a total, its rate and the time left, on standard error.

    A terminal gets a bar, anything else a line every half minute. `done_before` is what an earlier, interrupted run
    did: it counts as done and not towards the rate. With several processes only the first one prints.
    """

    def __init__(
        self,
        total: float | None,
        unit: str = "audio s",
        label: str = "",
        done_before: float = 0.0,
        stream: TextIO | None = None,
    ) -> None:
        self.total, self.unit, self.label = total, unit, label
        self.done = self._done_before = done_before
        self._stream = stream if stream is not None else sys.stderr
        self._note = ""
        self._silent = rank() != 0
        self._started = self._last_line = time.monotonic()
        self._bar: tqdm | None = None
        if not self._silent and self._stream.isatty():
            self._bar = tqdm(
                total=total,
                initial=done_before,
                desc=label,
                bar_format="{desc}: {percentage:3.0f}% {bar} {postfix}" if total else "{desc}: {postfix}",
                file=self._stream,
                dynamic_ncols=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, amount: float, note: str = "") -> None:
        """Add to what is done; `note` (a loss, a file name) is shown until the next one."""
        self.done += amount
        self._note = note or self._note
        if self._silent:
            return
        if self._bar is not None:
            self._bar.set_postfix_str(self._state(), refresh=False)
            self._bar.update(amount)
        elif time.monotonic() - self._last_line >= _LINE_EVERY_SECONDS:
            self._last_line = time.monotonic()
            self._print(self._state())

    def close(self) -> None:
        """Stop showing; leaves one line that says how much was done in what time, if anything was."""
        if self._silent:
            return
        if self._bar is not None:
            self._bar.set_postfix_str(self._state())
            self._bar.close()
        elif self.done > self._done_before:
            amount, seconds = self.done - self._done_before, time.monotonic() - self._started
            self._print(f"{amount:,.0f} {self.unit} in {duration(seconds)}{self._rate_text()}")
        self._silent = True

    def _print(self, text: str) -> None:
        print(f"{self.label}: {text}" if self.label else text, file=self._stream, flush=True)

    def _rate(self) -> float:
        return (self.done - self._done_before) / max(time.monotonic() - self._started, 1e-9)

    def _rate_text(self) -> str:
        rate = self._rate()
        return f", {rate:,.{0 if rate >= 100 else 1}f} {self.unit}/s"

    def _state(self) -> str:
        """`120 of 600 audio s (20%), 61.3 audio s/s, 8 s left, loss 2.1`"""
        text = f"{self.done:,.0f}"
        if self.total:
            text += f" of {self.total:,.0f} {self.unit} ({self.done / self.total:.0%})" + self._rate_text()
            if self.done - self._done_before >= _SHARE_FOR_A_FORECAST * self.total:
                text += f", {duration(max(0.0, self.total - self.done) / self._rate())} left"
        else:
            text += f" {self.unit}" + self._rate_text()
        return f"{text}, {self._note}" if self._note else text


def duration(seconds: float) -> str:
    """A time span for people: `8 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    whole = round(seconds)
    for long, short, size, step in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if whole >= size:
            return f"{whole // size} {long} {whole % size // step} {short}"
    return f"{whole} s"


def return_free_memory() -> None:
    """Give freed memory back to the system, where the C library can (glibc).

    Tensors of many sizes leave gaps that its allocator does not fill again: a process that works for hours grows.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
