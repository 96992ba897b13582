"""What `evaluate-slm` is told about going on from recordings, and `reproduce` about papers."""

from dataclasses import dataclass, replace
from typing import Literal

from codec.foundation import UserError
from slm.generation.config import SamplingConfig

Paper = Literal["hh-codec", "hybrid-codec"]  # whose table `reproduce` fills

SHORTEST_SECONDS = 1.0  # of what follows a prompt: there has to be something to go on with


@dataclass(frozen=True)
class ContinuationConfig:
    """How recordings are continued."""

    prompt_seconds: float = 3.0
    """Length of the prompt: the beginning of a recording."""
    seconds: float = 10.0
    """Longest continuation; never longer than the rest of the recording."""
    samples: int = 4
    """Continuations of each prompt."""
    temperature: float | None = None
    """Temperature of the samples; unset: that of --sampling."""
    split: str = "validation"
    """Split of the corpus."""

    def __post_init__(self) -> None:
        if self.prompt_seconds <= 0 or self.seconds < SHORTEST_SECONDS:
            raise UserError(
                "continuation.prompt_seconds must be above 0, continuation.seconds at least "
                f"{SHORTEST_SECONDS:g}"
            )
        if self.samples < 1:
            raise UserError(f"continuation.samples is {self.samples}: at least 1")

    def sampling(self, otherwise: SamplingConfig) -> SamplingConfig:
        """How tokens are drawn."""
        return otherwise if self.temperature is None else replace(otherwise, temperature=self.temperature)
