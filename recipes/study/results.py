"""What the cells of a study say: of one tokenizer, and of all tokenizers over the same whole recordings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codec.metrics import Interval, bootstrap_ratio
from recipes.evaluation.slm_evaluation import CEILING, REFERENCE
from recipes.study.cells import Cell
from recipes.study.language_model import ALONE, READ
from recipes.study.steps import Outcome

NO_INTERVAL = Interval(math.nan, math.nan, math.nan)
_RESAMPLES = 2_000  # of corpora of any size, for every number of every tokenizer


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
    return NO_INTERVAL if values is None else Interval.from_dict(values)


@dataclass(frozen=True)
class CommonRows:
    """Held-out recordings that every tokenizer's language model could be asked about in one way."""

    ids: list[str]  # sorted
    seconds: float  # of the recordings
    compared: list[str]  # the tokenizers that have any


@dataclass(frozen=True)
class Prediction:
    """What held-out speech costs as the codes of one tokenizer, bits a second of recording; NaN: not measured."""

    seconds: float  # of recordings, that it was measured on
    ngrams: list[float]  # uni-, bi-, trigrams
    alone: Interval
    read: Interval  # given its text
    saved: Interval  # by the text, over the recordings that have one
    bits_a_token: float  # of the language model, alone


class Comparison:
    """All tokenizers of a study, over what all of them have.

    A recording that is too long for one tokenizer's language model is left out of all, of n-grams too. A tokenizer for
    which all are too long is left out itself, or nothing would be left of the others; it has n-grams only.
    """

    def __init__(self, results: Sequence[Result]):
        self._results = {result.name: result for result in results}
        coded = set.intersection(*(set(result.held_out_tokens) for result in results))
        self._coded = coded
        self.alone = self._common(ALONE, coded)
        self._counted = self.alone.ids or sorted(coded)  # by n-grams
        self.read = self._common(READ, set(self.alone.ids))
        self._predictions = {name: self._predict(result) for name, result in self._results.items()}

    def of(self, name: str) -> Prediction:
        """The numbers of one tokenizer."""
        return self._predictions[name]

    def notes(self) -> list[str]:
        """What was left out, for whom and why."""
        found = []
        for name, result in self._results.items():
            positions = f"{result.prediction['positions']:,} positions of its language model"
            for view, common in ((ALONE, self.alone), (READ, self.read)):
                told = result.prediction["views"].get(view)
                if told is None or not told["too_long"]:
                    continue
                given = "" if view == ALONE else " with their texts"
                count = f"{told['too_long']:,} of {len(told['bits']):,} held-out recordings{given}"
                if name in common.compared:
                    found.append(
                        f"{name}: {count} do not fit into the {positions}: left out for all tokenizers."
                    )
                elif told["too_long"] + told["without_text"] == len(told["bits"]):
                    found.append(
                        f"{name}: {count} do not fit into the {positions}: nothing is measured of it (raise "
                        "model.max_positions)."
                    )
            beyond = result.prediction["views"][ALONE]["beyond_block"]
            if beyond:
                found.append(
                    f"{name}: {beyond:,} held-out recordings are longer than the blocks that its language model was "
                    "trained on, which saw speech of that length in pieces only (raise batch.length)."
                )
        read_by_most = max(len(result.held_out_tokens) for result in self._results.values())
        if unread := read_by_most - len(self._coded):
            found.append(
                f"{unread:,} held-out recordings could not be read for every tokenizer: left out for all."
            )
        without = max((self._without_text(result) for result in self._results.values()), default=0)
        if without and self.read.ids:
            found.append(
                f"{without:,} held-out recordings have no text, or no word times where those are needed: they are not "
                "among those given their text."
            )
        if not all(result.prediction["views"][ALONE]["trained_on"] for result in self._results.values()):
            found.append(
                "The language models saw no speech by itself in training: what it costs them alone is a stranger's "
                "guess (give `speech` documents a weight)."
            )
        return found

    @staticmethod
    def _without_text(result: Result) -> int:
        told = result.prediction["views"].get(READ)
        return 0 if told is None else int(told["without_text"])

    def _common(self, view: str, among: set[str]) -> CommonRows:
        """The recordings that have bits in a view, for all tokenizers that have any."""
        of_each = {name: told for name, result in self._results.items() if (told := result.predicted(view))}
        ids = sorted(among.intersection(*of_each.values())) if of_each else []
        seconds = self._results[next(iter(of_each))].recordings if of_each else {}
        return CommonRows(ids, math.fsum(seconds[key] for key in ids), list(of_each))

    def _predict(self, result: Result) -> Prediction:
        ids = self.alone.ids if result.name in self.alone.compared else []
        with_text = self.read.ids if result.name in self.read.compared else []
        alone, read = result.predicted(ALONE), result.predicted(READ)
        saved = {key: alone[key] - read[key] for key in with_text if key in alone}
        tokens = sum(result.held_out_tokens[key] for key in ids)
        return Prediction(
            seconds=self.alone.seconds if ids else 0.0,
            ngrams=[self._mean(result, bits) for bits in result.ngram_bits],
            alone=_rate(result, alone, ids),
            read=_rate(result, read, with_text),
            saved=_difference(result, saved),
            bits_a_token=math.fsum(alone[key] for key in ids) / tokens if tokens else math.nan,
        )

    def _mean(self, result: Result, bits: dict[str, float]) -> float:
        seconds = math.fsum(result.recordings[key] for key in self._counted)
        return math.fsum(bits[key] for key in self._counted) / seconds if seconds else math.nan


def _difference(result: Result, saved: dict[str, float]) -> Interval:
    """As `_rate`, of what may be below zero although none is: the interval is not cut off there."""
    sign = -1.0 if saved and min(saved.values()) >= 0 else 1.0
    found = _rate(result, {key: sign * value for key, value in saved.items()}, list(saved))
    bounds = (found.low, found.high) if sign > 0 else (-found.high, -found.low)
    return Interval(sign * found.value, *bounds)


def _rate(result: Result, bits: dict[str, float], ids: Sequence[str]) -> Interval:
    if not ids:
        return NO_INTERVAL
    recordings = result.recordings
    return bootstrap_ratio(
        np.array([bits[key] for key in ids]),
        np.array([recordings[key] for key in ids], float),
        resamples=_RESAMPLES,
    )
