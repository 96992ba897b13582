"""Timing that is fair on a busy machine: contestants take turns, so that all of them meet the same disturbances."""

import os
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from codec.foundation import Progress
from codec.foundation.process import return_free_memory

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
    # memory that one call takes beyond what was taken before; None where that is not known
    peak_bytes: int | None

    @property
    def fastest(self) -> float:
        """The least disturbed round."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.seconds)

    def faster_round_by_round(self, other: "Timing") -> float:
        """How many times as fast as `other`: the median over rounds, in which both met the same disturbances."""
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
                    synchronize(device)
                    start = time.perf_counter()
                    case.work()
                    synchronize(device)
                    seconds[case.name].append(time.perf_counter() - start)
                progress.update(1)
    return {name: Timing(name, tuple(found), peaks.get(name)) for name, found in seconds.items()}


@dataclass(frozen=True)
class Stretch:
    """What a contestant did in one turn, by its own clock: what comes before and after is not its work."""

    amount: float  # in whatever is counted
    seconds: float


@dataclass(frozen=True)
class Runner:
    """A contestant that counts what it does in a turn, and for how long."""

    name: str
    work: Callable[[], Stretch]


@dataclass(frozen=True)
class Pace:
    """How much one contestant did a second, turn by turn."""

    name: str
    stretches: tuple[Stretch, ...]
    peak_bytes: int | None = None  # memory that a turn takes beyond what stays between turns; None: not known

    @property
    def rates(self) -> list[float]:
        """Amount a second, turn by turn."""
        return [stretch.amount / stretch.seconds for stretch in self.stretches]

    @property
    def median(self) -> float:
        """Amount a second."""
        return statistics.median(self.rates)

    def faster_round_by_round(self, other: "Pace") -> float:
        """How many times as fast as `other`: the median over rounds, in which both met the same disturbances."""
        return statistics.median(a / b for a, b in zip(self.rates, other.rates, strict=True))


def race(
    runners: Sequence[Runner], rounds: int, device: torch.device, label: str, warm_up: int = 1
) -> dict[str, Pace]:
    """As `take_turns`, with those who keep their own clocks. By name.

    After the warm-up comes a round that does not count either, in which memory is looked at: what the first turn sets
    up for good is there by then, and is no part of what a turn takes.
    """
    found: dict[str, list[Stretch]] = {runner.name: [] for runner in runners}
    peaks: dict[str, int | None] = {}
    with Progress((warm_up + 1 + rounds) * len(runners), unit="calls", label=label) as progress:
        for number in range(warm_up + 1 + rounds):
            for runner in runners:
                if number == warm_up:
                    peaks[runner.name] = peak_memory(runner.work, device)
                else:
                    stretch = runner.work()
                    if number > warm_up:
                        found[runner.name].append(stretch)
                progress.update(1)
    return {name: Pace(name, tuple(stretches), peaks.get(name)) for name, stretches in found.items()}


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
    return_free_memory()  # what earlier calls freed would hide what is taken next
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


def _resident_bytes() -> int | None:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def synchronize(device: torch.device) -> None:
    """Wait for what a GPU was told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
