"""Bits of held-out speech that compare: over the same whole recordings for every tokenizer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from codec.metrics import Interval, bootstrap_ratio
from recipes.study.result import Result
from recipes.study.training import ALONE, READ

_NOTHING = Interval(math.nan, math.nan, math.nan)
_RESAMPLES = 2_000  # of corpora of any size, for every number of every tokenizer


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
        return _NOTHING
    recordings = result.recordings
    return bootstrap_ratio(
        np.array([bits[key] for key in ids]),
        np.array([recordings[key] for key in ids], float),
        resamples=_RESAMPLES,
    )
