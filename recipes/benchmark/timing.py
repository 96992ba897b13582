"""Timing that is fair on a busy machine: contestants take turns, so that all of them meet the same disturbances."""

import contextlib
import ctypes
import os
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from codec.runs import Progress

_WATCH_SECONDS = 0.002


@dataclass(frozen=True)
class Case:
    """A contestant, and what it is to do."""

    name: str
    work: Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """How long one contestant took, round by round."""

    name: str
    seconds: tuple[float, ...]
    peak_bytes: (
        int | None
    )  # memory that one call takes beyond what was taken before; None where that is not known

    @property
    def fastest(self) -> float:
        """The least disturbed round."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.seconds)

    def faster_than(self, other: "Timing") -> float:
        """How many times as fast as `other`, by the fastest round of each."""
        return other.fastest / self.fastest

    def faster_round_by_round(self, other: "Timing") -> float:
        """The same as the median over rounds, in which both met the same disturbances."""
        return statistics.median(b / a for a, b in zip(self.seconds, other.seconds, strict=True))


def take_turns(
    cases: Sequence[Case], rounds: int, device: torch.device, label: str, warm_up: int = 1
) -> dict[str, Timing]:
    """Run all cases in turn, `rounds` times after `warm_up` rounds that do not count. By name."""
    peaks: dict[str, int | None] = {}
    seconds: dict[str, list[float]] = {case.name: [] for case in cases}
    with Progress((warm_up + rounds) * len(cases), unit="calls", label=label) as progress:
        for number in range(warm_up + rounds):
            for case in cases:
                if number < warm_up:
                    peaks[case.name] = peak_memory(case.work, device)
                else:
                    _synchronize(device)
                    start = time.perf_counter()
                    case.work()
                    _synchronize(device)
                    seconds[case.name].append(time.perf_counter() - start)
                progress.update(1)
    return {name: Timing(name, tuple(found), peaks.get(name)) for name, found in seconds.items()}


def peak_memory(work: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that `work` takes at its peak beyond what is taken before: of the GPU, or of the process on Linux.

    The process is looked at every 2 ms: what lasts less may be missed.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    _return_free_memory()
    before_bytes = _resident_bytes()
    if before_bytes is None:
        work()
        return None
    peak, done = before_bytes, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(_WATCH_SECONDS):
            peak = max(peak, _resident_bytes() or 0)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return peak - before_bytes


def _return_free_memory() -> None:
    """Give what earlier calls freed back to the system, where the C library can: it would hide what is taken next."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _resident_bytes() -> int | None:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
