"""What the page takes."""

from dataclasses import dataclass

from codec.foundation import UserError


@dataclass(frozen=True)
class DemoLimits:
    """Limits of the page. It takes the beginning of a longer recording and says so; larger files and
    longer texts it refuses."""

    megabytes: float = 50.0
    """Largest upload."""
    seconds: float = 60.0
    """Longest recording."""
    characters: int = 1_000
    """Longest text."""
    continuations: int = 4
    """Most continuations of one recording."""
    concurrent: int = 2
    """Users who are served at once; the others wait."""
    waiting: int = 16
    """Users who may wait."""

    def __post_init__(self) -> None:
        if min(self.megabytes, self.seconds, self.characters, self.continuations, self.concurrent) <= 0:
            raise UserError("limits are numbers above 0")
        if self.waiting < 1:
            raise UserError("limits.waiting is 1 or more")
