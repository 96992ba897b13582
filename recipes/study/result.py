"""One tokenizer's cells, as the report asks for them."""

from pathlib import Path

from codec.metrics import Interval
from recipes.evaluation.slm_evaluation import CEILING, REFERENCE
from recipes.study.cells import Cell
from recipes.study.steps import Outcome

_NOTHING = float("nan")


class Result:
    """One tokenizer's cells, as the tables ask for them."""

    def __init__(self, outcome: Outcome, output: Path):
        self.outcome, self._output = outcome, output
        self.tokenizer = outcome.tokenizer
        self.name, self.info = outcome.tokenizer.name, outcome.tokenizer.info
        self.codes, self.reconstruction = outcome.codes.result, outcome.reconstruction.result
        self.model = outcome.language_model.result
        self.speech = outcome.speech.result if outcome.speech is not None else {}

    @property
    def times(self) -> dict[str, float]:
        """Seconds that each stage took."""
        cells: dict[str, Cell | None] = {
            "tokens": self.outcome.tokens,
            "codes": self.outcome.codes,
            "reconstruction": self.outcome.reconstruction,
            "language-model": self.outcome.language_model,
            "speech": self.outcome.speech,
        }
        if self.tokenizer.seconds is not None:
            return {"fit": self.tokenizer.seconds, **_seconds(cells)}
        return _seconds(cells)

    @property
    def ngram_bits(self) -> list[float]:
        """Bits a second by uni-, bi- and trigram."""
        return [or_nan(entry["bits_per_second"]) for entry in self.codes["ngrams"]]

    def model_bits(self, of: str) -> float:
        """Bits a second by the language model."""
        return or_nan(self.model["bits_per_second"].get(of))

    def rate(self, system: str, name: str = "word_error_rate") -> Interval:
        """An error rate of the codec's own table."""
        return interval(self.reconstruction["systems"].get(system, {}).get(name))

    def spoken(self, system: str, name: str = "word_error_rate") -> Interval:
        """An error rate of what the language model, or a reference of it, says."""
        return interval(self.speech.get("systems", {}).get(system, {}).get(name))

    @property
    def model_system(self) -> str | None:
        """The language model's row among what was read aloud."""
        return next((s for s in self.speech.get("systems", {}) if s not in (REFERENCE, CEILING)), None)

    def file(self, cell: Cell | None, name: str) -> str:
        """A file of a cell as the page links to it."""
        assert cell is not None  # what names the file is in its result
        return (cell.path / name).relative_to(self._output).as_posix()


def _seconds(cells: dict[str, Cell | None]) -> dict[str, float]:
    return {name: cell.seconds for name, cell in cells.items() if cell is not None}


def interval(values: dict[str, float] | None) -> Interval:
    """An interval as JSON has it; NaN where there is none."""
    if values is None or values["value"] is None:
        return Interval(_NOTHING, _NOTHING, _NOTHING)
    return Interval(**values)


def or_nan(value: float | None) -> float:
    """A number as JSON has it: null for NaN."""
    return _NOTHING if value is None else value
