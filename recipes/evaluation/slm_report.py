"""What `evaluate-slm` leaves: results.json, report.md, tables of what was measured, a spectrogram, and the audio."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codec.foundation import write_json, write_text
from codec.metrics import FEW, Column, Interval
from data import read_audio
from recipes.evaluation.continuations import Continuation, ContinuationResult
from recipes.evaluation.slm_evaluation import CEILING, REFERENCE, SLMEvaluation, SpokenRow
from recipes.reporting.page import as_markdown
from recipes.reporting.pictures import spectrogram_picture, waveform_row
from recipes.reporting.tables import Field, Table, rate, show, without_nan, words, write_parquet
from slm.evaluation.cross_modal import VIEWS, CrossModalResult, cross_modal_table_rows
from slm.evaluation.pairs import PairAccuracy, PairResult, pair_rows

COMPARED = "sentences with a reference"
_TABLES = "reading", "sound", "continuations", "their_sound", "pairs", "bits", "retrieval"
_MOST_ROWS = 200  # of a table in the page; the Parquet files have them all
_BIT_NAMES = {
    "text/bits_per_byte": "text, bits a byte",
    "speech/bits_per_token": "speech, bits a token",
    "speech/bits_per_second": "speech, bits a second",
    "control/bits_per_token": "where words and speech change, bits a token",
}


def write_slm_report(output: Path, evaluation: SLMEvaluation, facts: dict[str, Any]) -> str:
    """Write everything but the audio into `output` and return the Markdown tables of results.

    `facts`: the `model` (location), the `codec` (fields of CodecInfo), the `sentences`, `references`, `asr`, `device`,
    `threads` and `command`; where recordings were gone on with, the settings of `continuation`, and the `text_lm`.
    """
    output.mkdir(parents=True, exist_ok=True)
    content = summary(evaluation, facts)
    write_json(output / "results.json", content)
    rows: dict[str, list[dict[str, Any]]] = {
        "sentences": [_spoken(row, evaluation) for row in evaluation.rows],
        "pairs": pair_rows(evaluation.pairs),
        "continuations": _continued(evaluation.continuations),
        "cross_modal": cross_modal_table_rows(evaluation.cross_modal),
    }
    for name, found in rows.items():
        if found:
            write_parquet(output / f"{name}.parquet", found)
    example = next((row for row in evaluation.rows if row.audio and row.spoken.seconds), None)
    if example is not None:
        rate_of = facts["codec"]["sampling_rate"]
        audio = read_audio(output / str(example.audio), rate_of)
        title = f"“{example.sentence.text}” ({example.system})"
        spectrogram_picture(output / "spectrogram.png", [waveform_row(title, audio, rate_of)])
    tables = _tables(evaluation, content)
    write_text(
        output / "report.md", as_markdown("evaluate_slm", **_page_facts(evaluation, content, tables, example))
    )
    return "\n\n".join(map(str, tables.values()))


def _page_facts(
    evaluation: SLMEvaluation,
    content: Mapping[str, Any],
    tables: Mapping[str, Table],
    example: SpokenRow | None,
) -> dict[str, Any]:
    """What the page takes beside the tables: numbers that results.json does not have, and what was heard."""
    bits = [words("", lambda row: _BIT_NAMES.get(row[0], row[0])), Field("bits", lambda row: row[1], 3)]
    heard = [
        [row.sentence.text, row.system, show(row.transcript or None), show("; ".join(row.cuts) or None)]
        for row in evaluation.rows
        if row.audio is not None
    ]
    after = evaluation.continuations
    continued = [] if after is None else sorted(after.rows, key=lambda row: row.id)
    heard_after = [[row.id, row.system, show(row.transcript or None)] for row in continued]
    return {
        "content": content,
        "tables": {name: tables.get(name) for name in _TABLES},
        "few": FEW,
        "ceiling": CEILING,
        "compared": COMPARED,
        "sentences": evaluation.summary(evaluation.systems[-1]).sentences if evaluation.rows else 0,
        "columns": [column.key for column in evaluation.columns],
        "bits": Table.of(evaluation.bits.items(), bits),
        "uniform_bits": _uniform_bits(content["codec"]),
        "with_picture": example is not None,
        "heard": Table(["sentence", "", "heard", "cut"], heard[:_MOST_ROWS], words=4),
        "prompts": len({row.id for row in continued}),
        "their_columns": [] if after is None else [column.key for column in after.columns],
        "heard_after": Table(["recording", "", "heard after the prompt"], heard_after[:_MOST_ROWS], words=3),
        "candidates": next((result.candidates for result in evaluation.cross_modal if result.trials), None),
    }


def _tables(evaluation: SLMEvaluation, content: Mapping[str, Any]) -> dict[str, Table]:
    """Those of what was measured, by name, in their order."""
    found: dict[str, Table] = {}
    if evaluation.rows:
        found["reading"] = reading_table(content)
        found["sound"] = sound_table(content["systems"], evaluation.columns)
    if evaluation.continuations is not None:
        systems = content["continuations"]["systems"]
        found["continuations"] = continuations_table(systems)
        found["their_sound"] = sound_table(systems, evaluation.continuations.columns)
    if evaluation.pairs:
        found["pairs"] = pairs_table(content["pairs"])
    if evaluation.cross_modal:
        found["bits"] = bits_table(content["cross_modal"])
    if any(result.trials for result in evaluation.cross_modal):
        found["retrieval"] = retrieval_table(content["cross_modal"])
    return found


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
        **{column.key: without_nan(spoken.values.get(column.key)) for column in evaluation.columns},
        "repeated": without_nan(spoken.repetition.repeated) if spoken.repetition else None,
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
            **{column.key: without_nan(row.values.get(column.key)) for column in result.columns},
            "repeated": without_nan(row.repetition.repeated) if row.repetition else None,
            "longest_run": row.repetition.longest_run if row.repetition else None,
            "transcript": row.transcript,
            "nats": row.likelihood.nats if row.likelihood else None,
            "text_tokens": row.likelihood.tokens if row.likelihood else None,
            "auto_bleu": without_nan(row.auto_bleu),
            "self_bleu": without_nan(row.self_bleu),
            "samples_self_bleu": without_nan(row.samples_self_bleu),
            "audio": row.audio,
        }

    return [flat(row) for row in result.rows]


# ---- tables, of results.json


def reading_table(content: Mapping[str, Any], whole: bool = True) -> Table:
    """How well sentences are understood, ended and timed; systems below each other. `whole`: all that is known."""
    lines = {
        **content["systems"],
        **{f"{name}, {COMPARED}": entry for name, entry in content.get("with_reference", {}).items()},
    }

    def of_model(key: str) -> Callable[[Any], Any]:
        return lambda row: row[1].get(key) if "ended" in row[1] else None

    def length(row: Any) -> str | None:
        ratios = [row[1].get(f"{which}_ratio") for which in ("duration", "shortest", "longest")]
        if ratios[0] is None or "ended" not in row[1]:
            return None
        spread = f" ({ratios[1]:.2f}–{ratios[2]:.2f})" if whole and ratios[1] is not None else ""
        return f"{ratios[0]:.2f}{spread}"

    fields = [
        words("", lambda row: row[0]),
        *([Field("utterances", lambda row: row[1].get("sentences"))] if whole else []),
        rate("WER", lambda row: row[1].get("word_error_rate"), "lower"),
        rate("CER", lambda row: row[1].get("character_error_rate"), "lower"),
        rate("ended by itself", of_model("ended")),
        rate("… at ½ to 2 × the length", of_model("at_length")),
        Field("length / reference", length),
        Field("× real time", of_model("real_time"), 1),
    ]
    return Table.of(lines.items(), fields)


def sound_table(systems: Mapping[str, Any], columns: Sequence[Column], longest_run: bool = True) -> Table:
    """How systems sound; systems below each other."""

    def value(column: Column) -> Field:
        return Field.of(column, lambda row: row[1].get("values", {}).get(column.key))

    fields = [
        words("", lambda row: row[0]),
        Field("characters a second", lambda row: row[1].get("speaking_rate"), 1),
        *(value(column) for column in columns),
        rate("repeated pairs of frames", lambda row: row[1].get("repeated")),
        *([Field("longest run, frames", lambda row: row[1].get("longest_run"))] if longest_run else []),
    ]
    return Table.of(systems.items(), fields)


def continuations_table(systems: Mapping[str, Any], whole: bool = True) -> Table:
    """What is said after a prompt; the recordings and the codec above the model. `whole`: all that is known."""

    def of(key: str) -> Callable[[Any], Any]:
        return lambda row: row[1].get(key)

    fields = [
        words("", lambda row: row[0]),
        Field("prompts", of("prompts")),
        *([Field("seconds", of("seconds"), 1)] if whole else []),
        rate("ended by itself", of("ended")),
        rate("with words", of("heard"), "higher"),
        Field("perplexity", of("perplexity"), better="lower"),
        rate("auto-BLEU", of("auto_bleu"), "lower"),
        rate("self-BLEU", of("self_bleu"), "lower"),
        rate("VERT", of("vert"), "lower"),
    ]
    if whole:
        fields.append(rate("self-BLEU of a prompt's samples", of("samples_self_bleu"), "lower"))
    return Table.of(systems.items(), fields)


def pairs_table(tests: Mapping[str, Any]) -> Table:
    """Likelihood tests below each other, each with its categories."""
    lines: list[tuple[str, Any]] = []
    for name, test in tests.items():
        lines += [(name, test), *((f"… {part}", entry) for part, entry in test.get("categories", {}).items())]
    fields = [
        words("likelihood test", lambda row: row[0]),
        Field("pairs", lambda row: row[1]["pairs"]),
        rate("accuracy, by likelihood a token", lambda row: row[1]["normalized"], "higher"),
        rate("by likelihood", lambda row: row[1]["total"], "higher"),
        rate("ceiling", lambda row: row[1].get("ceiling")),
    ]
    return Table.of(lines, fields)


def bits_table(datasets: Mapping[str, Any]) -> Table:
    """Speech and text, each alone and with the other in view; datasets below each other."""
    lines = [
        {
            "name": name,
            "what": what,
            "rows": entry["rows"],
            "saved": entry.get(f"{unit}_saved"),
            **{
                place: show(entry["bits"].get(view), 3)
                + ("*" if view in entry.get("not_trained_on", []) else "")
                for place, view in zip(("alone", "other"), views, strict=True)
            },
        }
        for name, entry in datasets.items()
        for unit, what, views in (
            ("speech", "speech, bits a token", VIEWS[:2]),
            ("text", "text, bits a character", VIEWS[2:]),
        )
    ]
    fields = [
        words("", "name"),
        words("", "what"),
        Field("rows", "rows"),
        Field("alone", "alone", better="lower"),
        Field("the other in view", "other", better="lower"),
        Field("saved", "saved", 3, better="higher"),
    ]
    return Table.of(lines, fields)


def retrieval_table(datasets: Mapping[str, Any]) -> Table:
    """Whether the right one is found among others; datasets below each other."""
    fields = [
        words("", "name"),
        words("find the", "find"),
        words("reading", "reading"),
        Field("trials", "trials"),
        rate("found", "accuracy", "higher"),
        rate("chance", "chance"),
    ]
    return Table.of(
        ({"name": name, **trial} for name, entry in datasets.items() for trial in entry["retrieval"]), fields
    )


def _uniform_bits(codec: dict[str, Any]) -> float:
    """Of a token, where all codes are as likely."""
    sizes = codec["codebook_sizes"][: codec["num_quantizers"]]
    return sum(math.log2(size) for size in sizes) / len(sizes)
