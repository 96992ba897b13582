"""What `evaluate-slm` leaves: results.json, report.md, tables of sentences and pairs, a spectrogram, and the audio."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codec.runs import write_json, write_text
from data import read_audio
from recipes.evaluation.pairs import PairResult, pair_rows
from recipes.evaluation.slm_evaluation import CEILING, REFERENCE, SLMEvaluation, SpokenRow
from recipes.evaluation.tables import write_parquet
from recipes.report import markdown_table, rate_with_interval, spectrogram_picture, waveform_row
from slm.evaluation.metrics import SpeechSummary

_BIT_NAMES = {
    "text/bits_per_byte": "text, bits a byte",
    "speech/bits_per_token": "speech, bits a token",
    "speech/bits_per_second": "speech, bits a second",
    "control/bits_per_token": "where words and speech change, bits a token",
}


def write_slm_report(output: Path, evaluation: SLMEvaluation, facts: dict[str, Any]) -> str:
    """Write everything but the audio into `output` and return the Markdown tables of results.

    `facts`: the `model` (location), the `codec` (fields of CodecInfo), the `sentences`, `pairs`, `references`, `asr`
    and `command`.
    """
    output.mkdir(parents=True, exist_ok=True)
    systems = {system: _numbers(evaluation.summary(system), system) for system in evaluation.systems}
    write_json(
        output / "results.json",
        {
            **facts,
            "systems": systems,
            "pairs": {result.name: _accuracies(result) for result in evaluation.pairs},
            "bits": evaluation.bits,
            "skipped": evaluation.skipped,
            "without_reference": evaluation.unreferenced,
        },
    )
    if evaluation.rows:
        write_parquet(output / "sentences.parquet", [_flat(row) for row in evaluation.rows])
    if evaluation.pairs:
        write_parquet(output / "pairs.parquet", pair_rows(evaluation.pairs))
    example = next((row for row in evaluation.rows if row.audio and row.spoken.seconds), None)
    if example is not None:
        rate = facts["codec"]["sampling_rate"]
        audio = read_audio(output / str(example.audio), rate)
        title = f"“{example.sentence.text}” ({example.system})"
        spectrogram_picture(output / "spectrogram.png", [waveform_row(title, audio, rate)])
    write_text(output / "report.md", _page(evaluation, facts, with_picture=example is not None))
    tables = [results_table(evaluation)] if evaluation.rows else []
    tables += [pairs_table(evaluation.pairs)] if evaluation.pairs else []
    return "\n\n".join(tables)


def results_table(evaluation: SLMEvaluation) -> str:
    """Systems below each other."""
    header = [
        "",
        "WER ↓",
        "CER ↓",
        "ended by itself",
        "… at ½ to 2 × the length",
        "length / reference",
        "× real time",
    ]
    rows = []
    for system in evaluation.systems:
        summary = evaluation.summary(system)
        rates = [
            rate_with_interval(summary.word_error_rate),
            rate_with_interval(summary.character_error_rate),
        ]
        if system in (REFERENCE, CEILING):
            rows.append([system, *rates, "–", "–", "–", "–"])
            continue
        lengths = f"{summary.duration_ratio:.2f} ({summary.shortest_ratio:.2f}–{summary.longest_ratio:.2f})"
        no_reference = math.isnan(summary.duration_ratio)
        rows.append(
            [
                system,
                *rates,
                f"{summary.ended.value:.0%}",
                "–" if no_reference else f"{summary.plausible:.0%}",
                "–" if no_reference else lengths,
                f"{summary.real_time:.1f}",
            ]
        )
    return markdown_table(header, rows)


def pairs_table(results: Sequence[PairResult]) -> str:
    """Tests below each other, each with its categories."""
    rows = []
    for result in results:
        lines = {f"**{result.name}**": result.accuracy, **result.by_category()}
        for name, accuracy in lines.items():
            rates = [rate_with_interval(accuracy.normalized), rate_with_interval(accuracy.total)]
            rows.append([name, str(accuracy.pairs), *rates])
    return markdown_table(
        ["likelihood test", "pairs", "accuracy, by likelihood a token ↑", "by likelihood ↑"], rows
    )


def _page(evaluation: SLMEvaluation, facts: dict[str, Any], with_picture: bool) -> str:
    codec = facts["codec"]
    parts = [
        f"# {facts['model']}"
        + (f" reading {facts['sentences']['count']} sentences" if evaluation.rows else ""),
        f"`{facts['command']}`",
        f"Model `{facts['model']}`, codec `{codec['name']}` with fingerprint {codec['fingerprint']}.",
    ]
    if evaluation.rows:
        parts += _spoken_part(evaluation, facts, with_picture)
    if evaluation.pairs:
        parts += [
            "## Right or wrong",
            pairs_table(evaluation.pairs),
            "Share of the pairs in which the model finds the right recording likelier than the wrong one, with 95 % "
            "Wilson intervals; 50 % is chance, and a tie counts half. Every pair is a row of `pairs.parquet`.",
        ]
    return "\n\n".join(parts) + "\n"


def _spoken_part(evaluation: SLMEvaluation, facts: dict[str, Any], with_picture: bool) -> list[str]:
    notes = [
        "Ended by itself: no guard cut the sentence or a part of it.",
        "× real time: seconds of audio a second of computing, text in to waveform out, codec included "
        f"({facts['device']}, {facts['threads']} threads).",
    ]
    if facts["asr"] is not None:
        notes.insert(
            0,
            f"Word and character error rates (WER, CER) by {facts['asr']}, with 95 % bootstrap intervals over "
            "sentences; text is compared in lower case without punctuation.",
        )
    if facts["references"] is not None:
        notes.append(
            f"The error rates of “{CEILING}” are the ceiling: better than the recordings as the codec keeps them "
            "the model cannot be expected to speak. Length / reference: median (shortest–longest)."
        )
    if evaluation.unreferenced:
        notes.append(
            f"{len(evaluation.unreferenced)} sentences have no reference: their lengths are not compared."
        )
    notes += [f"Not measured: {reason}." for reason in evaluation.skipped.values()]
    parts = [results_table(evaluation), "\n".join(f"- {note}" for note in notes)]
    if evaluation.bits:
        rows = [[_BIT_NAMES.get(name, name), f"{value:.3f}"] for name, value in evaluation.bits.items()]
        parts += [
            "## Bits",
            "What the model needs to predict the references, text and speech, in the documents it speaks from:",
            markdown_table(["", "bits"], rows),
        ]
    if with_picture:
        parts.append("![what the model said](spectrogram.png)")
    heard = [
        [row.sentence.text, row.system, row.transcript or "–", "; ".join(row.cuts) or "–"]
        for row in evaluation.rows
        if row.audio is not None
    ]
    parts += [
        "## Sentence by sentence",
        markdown_table(["sentence", "", "heard", "cut"], heard[:_MOST_SENTENCES], words=4),
    ]
    parts.append("Every sentence is a row of `sentences.parquet`; the audio is in [audio](audio).")
    return parts


_MOST_SENTENCES = 200  # in the page; the Parquet file has them all


def _numbers(summary: SpeechSummary, system: str) -> dict[str, float | int | dict[str, float]]:
    """JSON of a summary: what was not measured is left out, and of recordings what only a model does."""
    numbers: dict[str, float | int | dict[str, float]] = {}
    for name, value in asdict(summary).items():
        if system in (REFERENCE, CEILING) and name in ("ended", "plausible"):
            continue
        if isinstance(value, dict):
            if not math.isnan(value["value"]):
                numbers[name] = value
        elif not math.isnan(value):
            numbers[name] = value
    return numbers


def _accuracies(result: PairResult) -> dict[str, Any]:
    """JSON of a likelihood test."""
    return {**asdict(result.accuracy), "categories": {n: asdict(a) for n, a in result.by_category().items()}}


def _flat(row: SpokenRow) -> dict[str, str | float | int | bool | None]:
    spoken = row.spoken
    of_model = row.audio is not None
    return {
        "id": row.sentence.id,
        "text": row.sentence.text,
        "system": row.system,
        "voice": row.voice,
        "seconds": spoken.seconds,
        "reference_seconds": spoken.reference_seconds,
        "ended": spoken.ended if of_model else None,
        "cuts": "; ".join(row.cuts) or None,
        "computing_seconds": spoken.computing_seconds if of_model else None,
        "transcript": row.transcript,
        "word_errors": spoken.words.errors if spoken.words else None,
        "words": spoken.words.length if spoken.words else None,
        "character_errors": spoken.characters.errors if spoken.characters else None,
        "characters": spoken.characters.length if spoken.characters else None,
        "audio": row.audio,
    }
