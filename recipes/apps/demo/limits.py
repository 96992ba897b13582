"""What the page takes."""

from dataclasses import dataclass

from codec.foundation import UserError


@dataclass(frozen=True)
class DemoLimits:
    """Of longer recordings the page takes the beginning, and says so; larger files and longer texts it refuses."""

    megabytes: float = 50.0  # of an upload
    seconds: float = 60.0  # of a recording
    characters: int = 1_000  # of a text
    continuations: int = 4
    concurrent: int = 2  # users who are served at once; the others wait
    waiting: int = 16  # users who may wait

    def __post_init__(self) -> None:
        if min(self.megabytes, self.seconds, self.characters, self.continuations, self.concurrent) <= 0:
            raise UserError("limits are numbers above 0")
        if self.waiting < 1:
            raise UserError("limits.waiting is 1 or more")
