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

    @property
    def heading(self) -> str:
        """The title, with an arrow towards what is better, where anything is."""
        arrows = {"higher": " ↑", "lower": " ↓", None: ""}
        return self.title + arrows[self.better]
