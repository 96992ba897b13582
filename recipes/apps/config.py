"""Limits of the applications: what they take, and what they refuse."""

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
    """Requests that are worked on at once; texts that wait at the same time count as one."""
    waiting: int = 32
    """Requests that may wait for that."""

    def __post_init__(self) -> None:
        if min(self.megabytes, self.seconds, self.characters, self.concurrent) <= 0 or self.waiting < 0:
            raise UserError("limits are numbers above 0 (limits.waiting may be 0)")

    @property
    def bytes(self) -> int:
        """Largest body of a request."""
        return int(self.megabytes * 2**20)


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

    @property
    def bytes(self) -> int:
        """Largest body of a request."""
        return int(self.megabytes * 2**20)
