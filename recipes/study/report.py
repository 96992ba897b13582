"""A study's report: report.html, report.md and results.json; times.json has what a clock decides."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codec.foundation import duration, write_json, write_text
from recipes.reporting.page import Block, Paragraph, Points, Section, as_html, as_markdown
from recipes.reporting.pictures import rate_with_interval
from recipes.study.cells import without_nan
from recipes.study.comparison import Comparison
from recipes.study.config import StudyConfig
from recipes.study.material import Material
from recipes.study.result import Result
from recipes.study.sections import (
    prediction_section,
    reconstruction_section,
    stability_section,
    tokens_section,
)
from recipes.study.sounds import listening_section
from recipes.study.speaking import speech_section
from recipes.study.steps import Outcome
from recipes.study.table_cells import bits, filled
from recipes.study.training import ALONE, READ


def write_report(output: Path, config: StudyConfig, material: Material, outcomes: Sequence[Outcome]) -> Path:
    """Write the page, its pictures, the numbers and the times; returns the HTML page.

    Nothing in the page or the numbers is a time, so what was killed and begun again reports what it would have.
    """
    results = [Result(outcome, output) for outcome in outcomes]
    comparison = Comparison(results)
    sections = [
        _summary(config, material, results, comparison),
        tokens_section(output, results),
        prediction_section(output, results, comparison),
        reconstruction_section(output, results),
        speech_section(config, results),
        stability_section(output, results),
        listening_section(results),
        _settings(config, material, results),
    ]
    sections = [section for section in sections if section.blocks]
    title = f"{', '.join(result.name for result in results)} on {material.corpus.name}"
    page = output / "report.html"
    write_text(output / "report.md", as_markdown(title, sections))
    write_text(page, as_html(title, sections, output))
    write_json(output / "results.json", _numbers(config, material, results, comparison))
    write_json(output / "times.json", {result.name: result.times for result in results})
    return page


def _summary(
    config: StudyConfig, material: Material, results: Sequence[Result], comparison: Comparison
) -> Section:
    """The one table that a paper would have."""
    rows = []
    for result in results:
        system, told = result.model_system, comparison.of(result.name)
        rows.append(
            [
                result.name,
                f"{result.codes['nominal_bitrate']:,.0f}",
                f"{result.info.frame_rate * result.info.num_quantizers:g}",
                bits(told.ngrams[-1]),
                bits(told.alone.value),
                bits(told.read.value),
                rate_with_interval(result.rate("codec")),
                rate_with_interval(result.spoken(system)) if system else "–",
            ]
        )
    header = [
        "",
        "bit/s as stored",
        "tokens/s",
        "trigram, bit/s ↓",
        "language model, bit/s ↓",
        "given the text, bit/s ↓",
        "WER through the codec ↓",
        "WER read aloud ↓",
    ]
    table = filled(header, rows)
    seen = _span([result.model["audio_hours"] for result in results])
    budget = (
        f"{config.steps:,} steps" if config.steps is not None else f"{config.audio_hours:g} hours of speech"
    )
    about = (
        f"{material.corpus.name}: {len(material.training):,} recordings ({duration(material.seconds['train'])}) to "
        f"train on, {len(material.held_out):,} ({duration(material.seconds['validation'])}) held out. One language "
        f"model each, of the same shape, for {budget} ({seen} hours of speech seen)."
    )
    blocks: list[Block] = [Paragraph(about), table]
    recordings = results[0].rate("recording")
    if not math.isnan(recordings.value):
        blocks.append(Paragraph(f"The recordings themselves: WER {rate_with_interval(recordings)}."))
    blocks.append(
        Points(
            [
                "Bits a second compare across frame rates and codebooks: what the same "
                f"{len(comparison.alone.ids):,} of {len(material.held_out):,} held-out recordings "
                f"({duration(comparison.alone.seconds)}), each whole, cost as these codes. A tokenizer that keeps less "
                "also costs less, so read them beside the error rates.",
                "WER: word error rate by a recogniser, with 95 % bootstrap intervals over recordings or sentences. "
                "Through the codec bounds what a language model over these codes can say.",
            ]
        )
    )
    return Section("In short", blocks)


def _settings(config: StudyConfig, material: Material, results: Sequence[Result]) -> Section:
    points = [
        "Made by `codec-slm study --config config.yaml`; config.yaml beside this page says everything.",
        f"Corpus {material.corpus.name}, content {material.hash}; gain {config.gain:g}; speeds "
        f"{', '.join(f'{speed:g}' for speed in config.speeds)}, {config.shifts} shifts of the training recordings.",
    ]
    for result in results:
        fitted = result.tokenizer.about
        how = (
            f", k-means of {fitted['frames']:,} frames in {fitted['iterations']} iterations, "
            f"vocoder of {fitted['vocoder']}"
            if fitted
            else ""
        )
        failures = result.outcome.tokens.result["failures"]
        lost = f"; {failures} recordings could not be read" if failures else ""
        points.append(
            f"{result.name}: fingerprint {result.info.fingerprint}{how}; {result.model['tokens']:,} tokens in "
            f"{result.model['steps']:,} steps, {result.model['epochs']:.1f} times through the recordings{lost}."
        )
    return Section("How it was made", [Points(points)])


def _numbers(
    config: StudyConfig, material: Material, results: Sequence[Result], comparison: Comparison
) -> dict[str, Any]:
    tokenizers = {}
    for result in results:
        # what there is of every code and of every held-out recording stays in the cells
        codes = {
            key: value for key, value in result.codes.items() if key not in ("counts", "held_out", "ngrams")
        }
        tokenizers[result.name] = {
            "codec": result.info.to_dict(),
            "about": dict(result.tokenizer.about),
            "tokens": dict(result.outcome.tokens.result),
            "codes": codes,
            "reconstruction": dict(result.reconstruction),
            "language_model": dict(result.model),
            "prediction": _predicted(result, comparison),
            "speech": dict(result.speech),
        }
    return {
        "corpus": {"name": material.corpus.name, "hash": material.hash, "seconds": material.seconds},
        "budget": {"steps": config.steps, "audio_hours": config.audio_hours, "batch": asdict(config.batch)},
        "compared": {
            ALONE: {"recordings": len(comparison.alone.ids), "seconds": comparison.alone.seconds},
            READ: {"recordings": len(comparison.read.ids), "seconds": comparison.read.seconds},
            "notes": comparison.notes(),
        },
        "tokenizers": tokenizers,
    }


def _predicted(result: Result, comparison: Comparison) -> dict[str, Any]:
    """Bits a second over the recordings that all tokenizers have, and how many this one could not be asked about."""
    told = comparison.of(result.name)
    left_out = {
        view: {key: entry[key] for key in ("document", "too_long", "without_text", "beyond_block")}
        for view, entry in result.prediction["views"].items()
    }
    return without_nan(
        {
            "seconds": told.seconds,
            "ngrams": dict(zip(("unigram", "bigram", "trigram"), told.ngrams, strict=True)),
            ALONE: asdict(told.alone),
            READ: asdict(told.read),
            "saved": asdict(told.saved),
            "bits_per_token": told.bits_a_token,
            "views": left_out,
        }
    )


def _span(values: Sequence[float]) -> str:
    low, high = (f"{value:.2f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
