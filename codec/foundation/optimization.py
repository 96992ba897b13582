"""Settings of the optimizer, and learning-rate schedules as pure functions of the step."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from codec.foundation.errors import UserError


def check_skips(skip_data: Mapping[int, int]) -> None:
    """Raises UserError unless it maps steps to numbers of steps whose data are left out."""
    if any(step < 0 or steps < 1 for step, steps in skip_data.items()):
        raise UserError(f"skip_data is {skip_data}: steps from 0 on, and how many to leave out, 1 or more")


@dataclass(frozen=True)
class Schedule:
    """How the learning rate moves over a run.

    `warmup-stable-decay` (Hu et al. 2024, arXiv 2404.06395, section 4; linear decay) holds the full rate
    until the last `decay_steps`, so a run can be extended, or cut, from any checkpoint of the stable part.
    `cosine` falls from the end of the warm-up to the end of the run.
    """

    kind: Literal["warmup-stable-decay", "cosine", "constant"] = "warmup-stable-decay"
    """Shape of the curve."""
    warmup_steps: int = 0
    """Updates of the linear warm-up; the last of them has the full rate."""
    decay_steps: int | None = None
    """Updates of the decay in warmup-stable-decay; unset: `decay_fraction` of the run."""
    decay_fraction: float = 0.2
    """Share of the run that the decay takes."""
    final_fraction: float = 0.0
    """Share of the full rate where the decay ends, one step after the last."""

    def __post_init__(self) -> None:
        if self.kind not in ("warmup-stable-decay", "cosine", "constant"):
            raise UserError(
                f"unknown schedule {self.kind!r}: schedule.kind is warmup-stable-decay, cosine or constant"
            )
        if self.warmup_steps < 0 or (self.decay_steps is not None and self.decay_steps < 0):
            raise UserError("schedule.warmup_steps and schedule.decay_steps count steps: 0 or more")
        if not (0 <= self.decay_fraction <= 1 and 0 <= self.final_fraction <= 1):
            raise UserError("schedule.decay_fraction and schedule.final_fraction are shares: from 0 to 1")

    def factor(self, step: int, total_steps: int) -> float:
        """Share of the full learning rate for update `step` (from 0) of a run of `total_steps`, in [0, 1].

        It is never 0 inside the run: a decay to `final_fraction` 0 ends one step after the last.
        """
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return min(warmup, self._descent(step, total_steps))

    def _descent(self, step: int, total_steps: int) -> float:
        if self.kind == "constant":
            return 1.0
        if self.kind == "cosine":
            start = min(self.warmup_steps, total_steps)
        else:
            start = max(0, total_steps - self._decay_length(total_steps))
        if step < start:
            return 1.0
        if step >= total_steps:
            return self.final_fraction
        done = (step - start) / (total_steps - start)  # in [0, 1)
        left = 0.5 * (1.0 + math.cos(math.pi * done)) if self.kind == "cosine" else 1.0 - done
        return self.final_fraction + (1.0 - self.final_fraction) * left

    def _decay_length(self, total_steps: int) -> int:
        return self.decay_steps if self.decay_steps is not None else round(self.decay_fraction * total_steps)


@dataclass
class AdamWConfig:
    """AdamW with a clipped gradient. Each training has defaults of its own."""

    learning_rate: float
    """Peak learning rate."""
    betas: tuple[float, float]
    """Decay of the first and second moment."""
    weight_decay: float
    """Decoupled weight decay."""
    clip_norm: float
    """Largest norm of the whole gradient; 0: no clipping."""

    def __post_init__(self) -> None:
        self.betas = (float(self.betas[0]), float(self.betas[1]))
