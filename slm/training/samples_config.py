"""What is listened to during a run."""

from dataclasses import dataclass, field

from codec.foundation import UserError


@dataclass
class SamplesConfig:
    """Speech that the model makes at every evaluation, as it stands: `samples/` of the run directory, TensorBoard.

    Texts read aloud where the documents teach that, and beginnings of validation recordings gone on with.
    """

    count: int = 2  # of each kind; 0: none
    texts: list[str] = field(default_factory=list)  # to read aloud; unset: those of validation recordings
    prompt_seconds: float = 3.0  # of a recording that is gone on with
    seconds: float = 5.0  # how far, at most

    def __post_init__(self) -> None:
        if self.count < 0 or self.prompt_seconds <= 0 or self.seconds <= 0:
            raise UserError("samples.count is 0 or more, samples.prompt_seconds and samples.seconds above 0")
