"""The tables of `evaluate-slm`: what each number is beside what it is to be compared with."""

import math
from collections.abc import Mapping, Sequence

from codec.metrics import Column, Interval
from recipes.evaluation.pairs import PairResult
from recipes.evaluation.slm_continuations import MODEL, ContinuationResult
from recipes.evaluation.slm_cross_modal import CrossModalResult
from recipes.evaluation.slm_evaluation import CEILING, REFERENCE, SLMEvaluation
from recipes.reporting.pictures import markdown_table, rate_with_interval
from slm.evaluation.cross_modal import VIEWS

NOTHING = "–"
COMPARED = "sentences with a reference"


def results_table(evaluation: SLMEvaluation) -> str:
    """How well sentences are understood, ended and timed; systems below each other."""
    header = [
        "",
        "utterances",
        "WER ↓",
        "CER ↓",
        "ended by itself",
        "… at ½ to 2 × the length",
        "length / reference",
        "× real time",
    ]
    rows = []
    lines = {system: evaluation.summary(system) for system in evaluation.systems}
    compared = {f"{system}, {COMPARED}": summary for system, summary in evaluation.compared.items()}
    for system, summary in {**lines, **compared}.items():
        rates = [
            f"{summary.sentences:,}",
            rate_with_interval(summary.word_error_rate),
            rate_with_interval(summary.character_error_rate),
        ]
        if system in (REFERENCE, CEILING):
            rows.append([system, *rates, *[NOTHING] * 4])
            continue
        lengths = f"{summary.duration_ratio:.2f} ({summary.shortest_ratio:.2f}–{summary.longest_ratio:.2f})"
        no_reference = math.isnan(summary.duration_ratio)
        rows.append(
            [
                system,
                *rates,
                rate_with_interval(summary.ended),
                rate_with_interval(summary.at_length),
                NOTHING if no_reference else lengths,
                f"{summary.real_time:.1f}",
            ]
        )
    return markdown_table(header, rows)


def sound_table(evaluation: SLMEvaluation) -> str:
    """How sentences sound; systems below each other."""
    header = ["", "characters a second", *_headings(evaluation.columns), *_REPETITION]
    rows = []
    for system in evaluation.systems:
        summary = evaluation.summary(system)
        rows.append(
            [
                system,
                with_interval(summary.speaking_rate, 1),
                *_values(evaluation.columns, summary.values),
                rate_with_interval(summary.repeated),
                _count(summary.longest_run),
            ]
        )
    return markdown_table(header, rows)


def continuations_table(result: ContinuationResult) -> str:
    """What is said after a prompt; the recordings and the codec above the model."""
    header = [
        "",
        "prompts",
        "seconds",
        "ended by itself",
        "with words ↑",
        "perplexity ↓",
        "auto-BLEU ↓",
        "self-BLEU ↓",
        "VERT ↓",
    ]
    header.append("self-BLEU of a prompt's samples ↓")
    rows = []
    for system in result.systems:
        summary = result.summary(system)
        rows.append(
            [
                system,
                f"{summary.prompts:,}",
                f"{summary.seconds:.1f}",
                rate_with_interval(summary.ended),
                rate_with_interval(summary.heard),
                with_interval(summary.perplexity, 0),
                rate_with_interval(summary.auto_bleu),
                rate_with_interval(summary.self_bleu),
                NOTHING if math.isnan(summary.vert) else f"{summary.vert:.1%}".replace("%", " %"),
                rate_with_interval(summary.samples_self_bleu) if system == MODEL else NOTHING,
            ]
        )
    return markdown_table(header, rows)


def continuations_sound_table(result: ContinuationResult) -> str:
    """How it sounds after a prompt."""
    rows = []
    for system in result.systems:
        summary = result.summary(system)
        rows.append(
            [
                system,
                *_values(result.columns, summary.values),
                rate_with_interval(summary.repeated),
                _count(summary.longest_run),
            ]
        )
    return markdown_table(["", *_headings(result.columns), *_REPETITION], rows)


def pairs_table(results: Sequence[PairResult]) -> str:
    """Likelihood tests below each other, each with its categories."""
    rows = []
    for result in results:
        lines = {f"**{result.name}**": result.accuracy, **result.by_category()}
        for name, accuracy in lines.items():
            rates = [rate_with_interval(accuracy.normalized), rate_with_interval(accuracy.total)]
            ceiling = f"{accuracy.ceiling:.1%}".replace("%", " %")
            rows.append([name, f"{accuracy.pairs:,}", *rates, ceiling])
    header = ["likelihood test", "pairs", "accuracy, by likelihood a token ↑", "by likelihood ↑", "ceiling"]
    return markdown_table(header, rows)


def bits_table(results: Sequence[CrossModalResult]) -> str:
    """Speech and text, each alone and with the other in view; datasets below each other."""
    rows = []
    for result in results:
        bits = result.bits
        for unit, saved in (("speech", bits.speech_saved), ("text", bits.text_saved)):
            views = [view for view in VIEWS if view.startswith(unit)]
            marks = ["*" if view in result.unfamiliar else "" for view in views]
            rows.append(
                [
                    result.name,
                    "speech, bits a token" if unit == "speech" else "text, bits a character",
                    str(len(result.rows)),
                    *(
                        with_interval(bits.bits[view], 3) + mark
                        for view, mark in zip(views, marks, strict=True)
                    ),
                    with_interval(saved, 3),
                ]
            )
    return markdown_table(["", "", "rows", "alone ↓", "the other in view ↓", "saved ↑"], rows, words=2)


def retrieval_table(results: Sequence[CrossModalResult]) -> str:
    """Whether the right one is found among others; datasets below each other."""
    rows = [
        [
            result.name,
            direction,
            reader,
            str(accuracy.trials),
            rate_with_interval(accuracy.accuracy),
            f"{accuracy.chance:.1%}".replace("%", " %"),
        ]
        for result in results
        for (reader, direction), accuracy in result.retrieval.items()
    ]
    return markdown_table(["", "find the", "reading", "trials", "found ↑", "chance"], rows, words=3)


def with_interval(interval: Interval, digits: int) -> str:
    """A value and its interval: `3.12 (2.98–3.25)`; without bounds, the value alone."""
    if math.isnan(interval.value):
        return NOTHING
    if not interval.bounded:
        return f"{interval.value:,.{digits}f}"
    return f"{interval.value:,.{digits}f} ({interval.low:,.{digits}f}–{interval.high:,.{digits}f})"


_REPETITION = ("repeated pairs of frames", "longest run, frames")


def _headings(columns: Sequence[Column]) -> list[str]:
    return [column.heading for column in columns]


def _values(columns: Sequence[Column], values: Mapping[str, Interval]) -> list[str]:
    there = [values.get(column.key) for column in columns]
    return [
        NOTHING if value is None else with_interval(value, column.digits)
        for column, value in zip(columns, there, strict=True)
    ]


def _count(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{value:.0f}"
