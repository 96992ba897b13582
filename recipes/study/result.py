"""One tokenizer's cells, as the report asks for them."""

from pathlib import Path
from typing import Any

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
        self.model, self.prediction = outcome.language_model.result, outcome.prediction.result
        self.speech = outcome.speech.result if outcome.speech is not None else {}

    @property
    def times(self) -> dict[str, float]:
        """Seconds that each stage took."""
        cells: dict[str, Cell | None] = {
            "tokens": self.outcome.tokens,
            "codes": self.outcome.codes,
            "reconstruction": self.outcome.reconstruction,
            "language-model": self.outcome.language_model,
            "prediction": self.outcome.prediction,
            "speech": self.outcome.speech,
        }
        if self.tokenizer.seconds is not None:
            return {"fit": self.tokenizer.seconds, **_seconds(cells)}
        return _seconds(cells)

    @property
    def recordings(self) -> dict[str, float]:
        """Seconds of every held-out recording, by id."""
        return dict(zip(self.prediction["ids"], self.prediction["seconds"], strict=True))

    @property
    def held_out_tokens(self) -> dict[str, int]:
        """Of every held-out recording, by id."""
        held_out = self.codes["held_out"]
        return dict(zip(held_out["ids"], held_out["tokens"], strict=True))

    @property
    def ngram_bits(self) -> list[dict[str, float]]:
        """Bits of every held-out recording by uni-, bi- and trigrams, by id."""
        ids = self.codes["held_out"]["ids"]
        return [dict(zip(ids, entry["bits"], strict=True)) for entry in self.codes["ngrams"]]

    def predicted(self, view: str) -> dict[str, float]:
        """Bits of the held-out recordings by the language model, by id; of those that it could be asked about."""
        told = self.prediction["views"].get(view)
        bits = [] if told is None else zip(self.prediction["ids"], told["bits"], strict=True)
        return {key: value for key, value in bits if value is not None}

    def rate(self, system: str, name: str = "word_error_rate") -> Interval:
        """An error rate of the codec's own table."""
        return interval(self.reconstruction["systems"].get(system, {}).get(name))

    def spoken(self, system: str, name: str = "word_error_rate") -> Interval:
        """An error rate of what the language model, or a reference of it, says."""
        return interval(self.speech.get("systems", {}).get(system, {}).get(name))

    @property
    def continuations(self) -> list[dict[str, Any]]:
        """What the language model said after prompts, and the prompts that it refused."""
        return self.speech.get("continuations", {}).get("rows", [])

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


def interval(values: dict[str, float | None] | None) -> Interval:
    """An interval as JSON has it, without bounds where null stands for them; NaN where there is none."""
    return Interval(_NOTHING, _NOTHING, _NOTHING) if values is None else Interval.from_dict(values)
