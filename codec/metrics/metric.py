"""What a metric is: its columns, how it is computed, and the packages that it needs."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Literal, Protocol

from torch import Tensor

from codec.foundation.errors import UserError


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


@dataclass(frozen=True)
class WaveformMetric:
    """Compares a decoded waveform with its recording, both (samples,) at one rate: one value a column.

    Where `needs_reference` is false, the waveform is judged by itself; the recording that it is given counts for
    nothing, and may be the waveform.
    """

    name: str
    columns: tuple[Column, ...]
    measure: Callable[[Tensor, Tensor, int], tuple[float, ...]]
    packages: tuple[str, ...] = ()  # what must be installed for it
    needs_reference: bool = True


class Judge(Protocol):
    """A metric that is a neural network: it is opened once and runs in one process, on its own device."""

    column: Column
    needs_reference: bool

    def __call__(self, reference: Tensor | None, estimate: Tensor, sampling_rate: int) -> float:
        """Score one utterance; both waveforms are (samples,), the estimate not shorter than the reference."""
        ...


class MissingDependency(UserError):
    """A package that a metric stands on is not installed; the message names both and says how to get it."""


def require(package: str, purpose: str) -> ModuleType:
    """Import `package` for `purpose`; raises MissingDependency where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingDependency(
            f"{purpose} needs the package {package}: pip install 'codec-slm[eval]'"
        ) from error
