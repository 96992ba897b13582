"""What `evaluate-slm` leaves: results.json, report.md, tables of what was measured, a spectrogram, and the audio."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codec.foundation import write_json, write_text
from codec.metrics import Interval
from data import read_audio
from recipes.evaluation.pairs import PairResult, pair_rows
from recipes.evaluation.slm_continuations import Continuation, ContinuationResult
from recipes.evaluation.slm_cross_modal import CrossModalResult, cross_modal_table_rows
from recipes.evaluation.slm_evaluation import CEILING, REFERENCE, SLMEvaluation, SpokenRow
from recipes.evaluation.slm_page import page
from recipes.evaluation.slm_tables import (
    bits_table,
    continuations_sound_table,
    continuations_table,
    pairs_table,
    results_table,
    retrieval_table,
    sound_table,
)
from recipes.reporting.pictures import spectrogram_picture, waveform_row
from recipes.reporting.tables import write_parquet
from slm.evaluation.pair_likelihood import PairAccuracy


def write_slm_report(output: Path, evaluation: SLMEvaluation, facts: dict[str, Any]) -> str:
    """Write everything but the audio into `output` and return the Markdown tables of results.

    `facts`: the `model` (location), the `codec` (fields of CodecInfo), the `sentences`, `references`, `asr`, `device`,
    `threads` and `command`; where recordings were gone on with, the settings of `continuation`, and the `text_lm`.
    """
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "results.json", summary(evaluation, facts))
    tables: dict[str, list[dict[str, Any]]] = {
        "sentences": [_spoken(row, evaluation) for row in evaluation.rows],
        "pairs": pair_rows(evaluation.pairs),
        "continuations": _continued(evaluation.continuations),
        "cross_modal": cross_modal_table_rows(evaluation.cross_modal),
    }
    for name, rows in tables.items():
        if rows:
            write_parquet(output / f"{name}.parquet", rows)
    example = next((row for row in evaluation.rows if row.audio and row.spoken.seconds), None)
    if example is not None:
        rate = facts["codec"]["sampling_rate"]
        audio = read_audio(output / str(example.audio), rate)
        title = f"“{example.sentence.text}” ({example.system})"
        spectrogram_picture(output / "spectrogram.png", [waveform_row(title, audio, rate)])
    write_text(output / "report.md", page(evaluation, facts, with_picture=example is not None))
    shown = [results_table(evaluation), sound_table(evaluation)] if evaluation.rows else []
    if evaluation.continuations is not None:
        shown += [
            continuations_table(evaluation.continuations),
            continuations_sound_table(evaluation.continuations),
        ]
    shown += [pairs_table(evaluation.pairs)] if evaluation.pairs else []
    shown += [bits_table(evaluation.cross_modal)] if evaluation.cross_modal else []
    shown += (
        [retrieval_table(evaluation.cross_modal)] if any(r.trials for r in evaluation.cross_modal) else []
    )
    return "\n\n".join(shown)


def summary(evaluation: SLMEvaluation, facts: dict[str, Any]) -> dict[str, Any]:
    """The numbers as JSON: what was not measured is left out."""
    systems = {}
    for system in evaluation.systems:
        fields = asdict(evaluation.summary(system))
        if system in (REFERENCE, CEILING):  # what only a model does
            del fields["ended"], fields["plausible"], fields["at_length"]
        systems[system] = _measured(fields)
    continuations = None
    if evaluation.continuations is not None:
        result = evaluation.continuations
        continuations = {
            "systems": {system: _measured(asdict(result.summary(system))) for system in result.systems},
            "failures": result.failures,
        }
    return {
        **facts,
        "systems": systems,
        "with_reference": {s: _measured(asdict(lines)) for s, lines in evaluation.compared.items()},
        "pairs": {result.name: _accuracies(result) for result in evaluation.pairs},
        "bits": evaluation.bits,
        "bits_of": evaluation.bits_of,
        "continuations": continuations,
        "cross_modal": {result.name: _cross_modal(result) for result in evaluation.cross_modal},
        "skipped": evaluation.skipped,
        "without_reference": evaluation.unreferenced,
        "failures": evaluation.failures,
        "not_trained_on": evaluation.not_trained_on,
        "unfinished": evaluation.unfinished,
    }


def _measured(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is NaN, and intervals around NaN; null for bounds that there are none of."""
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict) and "level" not in value:
            kept[name] = _measured(value)
        elif isinstance(value, dict):
            if not math.isnan(value["value"]):
                kept[name] = Interval(**value).to_dict()
        elif not math.isnan(value):
            kept[name] = value
    return kept


def _accuracies(result: PairResult) -> dict[str, Any]:
    """JSON of a likelihood test."""
    return {
        **_accuracy(result.accuracy),
        "categories": {name: _accuracy(accuracy) for name, accuracy in result.by_category().items()},
        "failures": result.failures,
    }


def _accuracy(accuracy: PairAccuracy) -> dict[str, Any]:
    return {**_measured(asdict(accuracy)), "ceiling": accuracy.ceiling}


def _cross_modal(result: CrossModalResult) -> dict[str, Any]:
    """JSON of a token dataset."""
    return {
        "rows": len(result.rows),
        "left_out": result.left_out,
        "documents": result.formats,
        "not_trained_on": result.unfamiliar,
        **_measured(asdict(result.bits)),
        "retrieval": [
            {"reading": reader, "find": direction, "chance": accuracy.chance, **_measured(asdict(accuracy))}
            for (reader, direction), accuracy in result.retrieval.items()
        ],
    }


def _spoken(row: SpokenRow, evaluation: SLMEvaluation) -> dict[str, str | float | int | bool | None]:
    spoken = row.spoken
    of_model = row.audio is not None
    pace = (
        spoken.text_characters / spoken.sounding_seconds
        if spoken.text_characters and spoken.sounding_seconds
        else None
    )
    return {
        "id": row.sentence.id,
        "text": row.sentence.text,
        "system": row.system,
        "voice": row.voice,
        "seconds": spoken.seconds,
        "sounding_seconds": spoken.sounding_seconds,
        "characters_a_second": pace,
        "reference_seconds": spoken.reference_seconds,
        "ended": spoken.ended if of_model else None,
        "cuts": "; ".join(row.cuts) or None,
        "computing_seconds": spoken.computing_seconds if of_model else None,
        **{column.key: _defined(spoken.values.get(column.key)) for column in evaluation.columns},
        "repeated": _defined(spoken.repetition.repeated) if spoken.repetition else None,
        "longest_run": spoken.repetition.longest_run if spoken.repetition else None,
        "transcript": row.transcript,
        "word_errors": spoken.words.errors if spoken.words else None,
        "words": spoken.words.length if spoken.words else None,
        "character_errors": spoken.characters.errors if spoken.characters else None,
        "characters": spoken.characters.length if spoken.characters else None,
        "audio": row.audio,
    }


def _continued(result: ContinuationResult | None) -> list[dict[str, Any]]:
    if result is None:
        return []

    def flat(row: Continuation) -> dict[str, Any]:
        return {
            "id": row.id,
            "system": row.system,
            "sample": row.sample,
            "seconds": row.seconds,
            "ended": row.ended,
            "cut": row.cut,
            **{column.key: _defined(row.values.get(column.key)) for column in result.columns},
            "repeated": _defined(row.repetition.repeated) if row.repetition else None,
            "longest_run": row.repetition.longest_run if row.repetition else None,
            "transcript": row.transcript,
            "nats": row.likelihood.nats if row.likelihood else None,
            "text_tokens": row.likelihood.tokens if row.likelihood else None,
            "auto_bleu": _defined(row.auto_bleu),
            "self_bleu": _defined(row.self_bleu),
            "samples_self_bleu": _defined(row.samples_self_bleu),
            "audio": row.audio,
        }

    return [flat(row) for row in result.rows]


def _defined(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
