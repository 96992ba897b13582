"""What is listened to during a run."""

from dataclasses import dataclass, field

from codec.foundation import UserError


@dataclass
class SamplesConfig:
    """Speech that the model makes at every evaluation, in `samples/` of the run directory and in TensorBoard.

    It reads texts aloud where the documents teach that, and continues validation recordings.
    """

    count: int = 2
    """Samples of each kind; 0: none."""
    texts: list[str] = field(default_factory=list)
    """Texts to read aloud; empty: those of validation recordings."""
    prompt_seconds: float = 3.0
    """Length of the prompt: the beginning of a recording."""
    seconds: float = 5.0
    """Longest continuation."""

    def __post_init__(self) -> None:
        if self.count < 0 or self.prompt_seconds <= 0 or self.seconds <= 0:
            raise UserError("samples.count is 0 or more, samples.prompt_seconds and samples.seconds above 0")
