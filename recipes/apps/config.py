"""What a service that anybody may call takes, and what it refuses."""

from dataclasses import dataclass

from codec.foundation import UserError


@dataclass(frozen=True)
class ServiceLimits:
    """Sizes and numbers above which a request is refused."""

    megabytes: float = 20.0
    """Largest request."""
    seconds: float = 120.0
    """Longest recording, and longest audio that codes stand for."""
    characters: int = 2_000
    """Longest text."""
    concurrent: int = 2
    """Requests that are worked on at once."""
    waiting: int = 32
    """Requests that may wait for that."""

    def __post_init__(self) -> None:
        if min(self.megabytes, self.seconds, self.characters, self.concurrent) <= 0 or self.waiting < 0:
            raise UserError("limits are numbers above 0 (limits.waiting may be 0)")

    @property
    def bytes(self) -> int:
        """Largest body of a request."""
        return int(self.megabytes * 2**20)
