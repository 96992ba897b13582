"""Noticing that a model begins to learn its training data by heart."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_MARGIN = 0.01  # of the best validation loss: less than that is chance
_EVALUATIONS = 2  # in a row, before anything is said


@dataclass
class _Best:
    validation: float
    train: float
    worse: int = 0  # evaluations in a row that were above it while the training loss went on falling


@dataclass
class DivergenceWatch:
    """Compares training and validation losses, of each validation set by itself."""

    best: dict[str, _Best] = field(default_factory=dict)

    def update(self, train: float, validation: Mapping[str, float]) -> list[str]:
        """After an evaluation: the warnings that it gives cause for, a line each.

        train: the training loss now; validation: losses by the sets' names, in the same unit.
        """
        warnings = []
        for name, loss in validation.items():
            best = self.best.get(name)
            if best is None or loss < best.validation:
                self.best[name] = _Best(loss, train)
                continue
            parted = loss > best.validation * (1 + _MARGIN) and train < best.train
            best.worse = best.worse + 1 if parted else 0
            if best.worse >= _EVALUATIONS:
                warnings.append(
                    f"training and validation part on {name}: validation loss {loss:.3f}, at best "
                    f"{best.validation:.3f}, while the training loss fell from {best.train:.3f} to {train:.3f}; "
                    "more data, dropout or a shorter run would help (the best checkpoint is kept)"
                )
        return warnings

    @classmethod
    def of_log(cls, lines: Iterable[Mapping[str, Any]], only: str = "validation") -> "DivergenceWatch":
        """Where the watch of a run stood that is gone on with, from its log.

        only: what the validation set is called if there is a single one, of which the log does not tell the name.
        """
        watch, train = cls(), None
        for line in lines:
            train = line.get("train/loss", train)
            found = {
                name.removeprefix("validation/").removesuffix("/loss")
                if name != "validation/loss"
                else "": value
                for name, value in line.items()
                if name.startswith("validation/") and name.endswith("/loss") and value is not None
            }
            if len(found) > 1:
                found.pop("", None)  # all sets together
            if found and train is not None:
                watch.update(train, {name or only: loss for name, loss in found.items()})
        return watch
