"""How far long work has come: a bar on a terminal, a line every half minute anywhere else."""

import sys
import time
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm

from codec.foundation.launcher import rank

_LINE_EVERY_SECONDS = 30.0
_SHARE_FOR_A_FORECAST = 0.01  # of the total: the first step of anything is slow


class Progress:
    """Shows an amount growing to a total, its rate and the time left, on standard error.

    `done_before` is what an earlier, interrupted run did: it counts as done and not towards the rate. With
    several processes only the first one speaks.
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
