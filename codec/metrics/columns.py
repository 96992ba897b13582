"""How a number is shown."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Column:
    """One number in a table of results."""

    key: str
    title: str
    better: Literal["higher", "lower"] | None
    digits: int = 3
    percent: bool = False
