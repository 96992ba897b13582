"""The report's section on what the language models say."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from codec.metrics import Column
from recipes.evaluation.slm_evaluation import CEILING, REFERENCE
from recipes.reporting.page import Block, Paragraph, Points, Section
from recipes.reporting.pictures import rate_with_interval
from recipes.study.config import StudyConfig
from recipes.study.result import Result, interval
from recipes.study.table_cells import columns_of, filled, not_measured

_REPETITION = ("repeated pairs of frames", "longest run, frames")


def speech_section(config: StudyConfig, results: Sequence[Result]) -> Section:
    """How well the language models read aloud, and how they go on."""
    rows: list[list[str]] = []
    sounds: list[list[str]] = []
    columns = columns_of(result.speech.get("columns", []) for result in results)
    for result in results:
        for system, numbers in result.speech.get("systems", {}).items():
            if system == REFERENCE and rows:
                continue  # the recordings are the same for all
            of_model = system == result.model_system
            label = {REFERENCE: "recordings", CEILING: f"recordings through {result.name}"}.get(
                system, f"language model on {result.name}"
            )
            rows.append(
                [
                    label,
                    rate_with_interval(interval(numbers["word_error_rate"])),
                    rate_with_interval(interval(numbers["character_error_rate"])),
                    rate_with_interval(interval(numbers["ended"])) if of_model else "–",
                    rate_with_interval(interval(numbers["at_length"])) if of_model else "–",
                    _plain(numbers["duration_ratio"]) if of_model else "–",
                ]
            )
            sounds.append([label, _value(numbers["speaking_rate"], 1), *_sound(numbers, columns)])
    remarks = [
        *not_measured(result.speech.get("skipped", {}) for result in results),
        *(
            f"{result.name}: left out: {what} ({why})."
            for result in results
            for what, why in result.speech.get("failures", {}).items()
        ),
    ]
    remaining: list[Block] = [*([Points(remarks)] if remarks else []), *_continuations(results)]
    if not rows:
        return Section("Speaking", remaining if any(result.speech for result in results) else [])
    header = ["", "WER ↓", "CER ↓", "ended by itself ↑", "… at ½ to 2 × the length ↑", "length / recording"]
    systems = (numbers for result in results for numbers in result.speech.get("systems", {}).values())
    sentences = max(numbers["sentences"] for numbers in systems)
    blocks: list[Block] = [
        filled(header, rows),
        Paragraph(
            f"{sentences} held-out sentences, the best of {config.speaking.candidates} by the model's own hearing."
            if config.speaking.candidates > 1
            else f"{sentences} held-out sentences, each spoken once."
        ),
        filled(["", "characters a second", *(c.heading for c in columns), *_REPETITION], sounds),
        Paragraph(
            "Means over sentences. Characters a second: without the silence around the sentence. Repeated: pairs of "
            "frames that were there before in the same utterance; the longest run is the worst sentence's."
        ),
    ]
    return Section("Speaking", [*blocks, *remaining])


def _continuations(results: Sequence[Result]) -> list[Block]:
    """What is said after the beginnings of held-out recordings."""
    told = {r.name: r.speech["continuations"] for r in results if r.continuations}
    if not told:
        return []
    columns = columns_of(entry["columns"] for entry in told.values())
    rows = []
    for name, entry in told.items():
        summary = entry["summary"]
        rows.append(
            [
                f"language model on {name}",
                str(summary["continuations"]),
                str(summary["refused"]) if summary["refused"] else "–",
                _plain(summary["seconds"]),
                rate_with_interval(interval(summary["ended"])),
                *_sound(summary, columns),
            ]
        )
    header = ["", "continuations", "refused", "seconds", "ended by itself", *(c.heading for c in columns)]
    refused = [
        f"{name}: {row['id']} is not gone on with: {row['reason']}."
        for name, entry in told.items()
        for row in entry["rows"]
        if row["audio"] is None
    ]
    return [
        Paragraph("Beginnings of held-out recordings, gone on with; only what follows them is measured."),
        filled([*header, *_REPETITION], rows),
        *([Points(refused)] if refused else []),
    ]


def _sound(numbers: Mapping[str, Any], columns: Sequence[Column]) -> list[str]:
    """The cells of what is measured of the audio, and how much of the codes repeats."""
    values = [_value(numbers["values"].get(column.key), column.digits) for column in columns]
    run = numbers["longest_run"]
    return [*values, rate_with_interval(interval(numbers["repeated"])), "–" if run is None else f"{run:.0f}"]


def _value(told: dict[str, float | None] | None, digits: int) -> str:
    value = interval(told).value
    return "–" if math.isnan(value) else f"{value:,.{digits}f}"


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
