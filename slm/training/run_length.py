"""How long a run lasts: by updates, tokens or the clock, and how many updates that makes."""

import math
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class RunLength:
    """A run ends when the first of its limits is reached; None is no limit.

    With updates or tokens the total is known from the start, so the schedule is the same after any number of kills.
    With seconds it is what the pace so far lets expect.
    """

    max_steps: int | None
    max_tokens: int | None
    max_seconds: float | None
    tokens_per_step: int

    @property
    def known_steps(self) -> int | None:
        """Updates that the limits allow whatever the pace; None where only the clock decides."""
        limits = [] if self.max_steps is None else [self.max_steps]
        if self.max_tokens is not None:
            limits.append(math.ceil(self.max_tokens / self.tokens_per_step))
        return min(limits, default=None)

    def is_over(self, step: int, seconds: float) -> bool:
        """Whether a run that has made `step` updates in so many seconds is at its end."""
        known = self.known_steps
        return (known is not None and step >= known) or (
            self.max_seconds is not None and seconds >= self.max_seconds
        )

    def total_steps(self, step: int, seconds: float) -> int:
        """Updates of the whole run, as far as one can tell after `step` of them; always one more at least."""
        known = self.known_steps
        totals = [] if known is None else [known]
        if self.max_seconds is not None:
            pace = seconds / step if step else 0.0
            totals.append(math.ceil(self.max_seconds / pace) if pace else sys.maxsize)
        return max(step + 1, min(totals))
