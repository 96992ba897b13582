"""Settings of generation: how tokens are drawn, and how long speech may be."""

from dataclasses import dataclass

from codec.foundation import UserError


def check_speed(speed: float, what: str) -> None:
    """Raise UserError, which calls it `what`, for a speed of speech that nobody would follow."""
    if not 0.5 <= speed <= 2.0:
        raise UserError(f"{what} is {speed:g}: 0.5 (half as fast) to 2 (twice as fast)")


@dataclass(frozen=True)
class SamplingConfig:
    """How tokens are drawn."""

    temperature: float = 0.75
    """0: always the likeliest token."""
    top_k: int = 0
    """Draw from this many likeliest tokens; 0: all."""
    top_p: float = 0.9
    """Draw from the likeliest tokens that together have this probability."""
    repetition_window: int = 10
    """Repetition-aware resampling (VALL-E 2, arXiv 2406.05370, section 4.3) looks at this many last
    tokens."""
    repetition_threshold: float = 0.3
    """A token that makes up at least this share of the window is drawn again from the whole distribution;
    above 1: never."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise UserError(f"sampling.temperature is {self.temperature}: 0 (greedy) or more")
        if self.top_k < 0:
            raise UserError(f"sampling.top_k is {self.top_k}: 0 (all tokens) or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"sampling.top_p is {self.top_p}: a share above 0, at most 1")
        if self.repetition_window < 0 or self.repetition_threshold <= 0:
            raise UserError(
                "sampling.repetition_window counts tokens from 0, sampling.repetition_threshold is above 0"
            )


@dataclass(frozen=True)
class SpeechBounds:
    """Limits on generated speech."""

    fastest: float = 0.6
    """Speech for n characters may end after `fastest` x n times what the model's fastest speakers take."""
    slowest: float = 1.5
    """It has to end after `slowest` x n times what the slowest take, plus `pause_seconds` for each span."""
    pause_seconds: float = 1.0
    """Added to the longest duration of each span."""
    stuck_seconds: float = 2.0
    """Cut speech after this much of nothing but silence or a loop; 0: never."""
    passage_seconds: float = 12.0
    """Sentences are said together as long as they take no more than this at the model's usual pace: about
    as much as it has heard in one go. 0: as long as it can read."""

    def __post_init__(self) -> None:
        if not 0 <= self.fastest <= 1 <= self.slowest:
            raise UserError("bounds.fastest is from 0 to 1, bounds.slowest 1 or more")
        if min(self.pause_seconds, self.stuck_seconds, self.passage_seconds) < 0:
            raise UserError(
                "bounds.pause_seconds, bounds.stuck_seconds and bounds.passage_seconds must be 0 or more"
            )

    def stuck_frames(self, frame_rate: float) -> int:
        """Frames of nothing new that end a span."""
        return round(self.stuck_seconds * frame_rate)
