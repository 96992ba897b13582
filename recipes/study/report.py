"""A study's report: report.html, report.md and results.json; times.json has what a clock decides."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codec.runs import duration, write_json, write_text
from recipes.report import rate_with_interval
from recipes.study.config import StudyConfig
from recipes.study.material import Material
from recipes.study.page import Block, Paragraph, Points, Section, as_html, as_markdown
from recipes.study.result import Result
from recipes.study.sections import (
    bits,
    filled,
    prediction_section,
    reconstruction_section,
    speech_section,
    stability_section,
    tokens_section,
)
from recipes.study.sounds import listening_section
from recipes.study.steps import Outcome
from recipes.study.training import ALONE, READ


def write_report(output: Path, config: StudyConfig, material: Material, outcomes: Sequence[Outcome]) -> Path:
    """Write the page, its pictures, the numbers and the times; returns the HTML page.

    Nothing in the page or the numbers is a time, so what was killed and begun again reports what it would have.
    """
    results = [Result(outcome, output) for outcome in outcomes]
    sections = [
        _summary(config, material, results),
        tokens_section(output, results),
        prediction_section(output, results),
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
    write_json(output / "results.json", _numbers(config, material, results))
    write_json(output / "times.json", {result.name: result.times for result in results})
    return page


def _summary(config: StudyConfig, material: Material, results: Sequence[Result]) -> Section:
    """The one table that a paper would have."""
    rows = []
    for result in results:
        system = result.model_system
        rows.append(
            [
                result.name,
                f"{result.codes['nominal_bitrate']:,.0f}",
                f"{result.info.frame_rate * result.info.num_quantizers:g}",
                bits(result.ngram_bits[-1]),
                bits(result.model_bits(ALONE)),
                bits(result.model_bits(READ)),
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
                "Bits a second compare across frame rates and codebooks: what held-out speech costs as these codes. A "
                "tokenizer that keeps less also costs less, so read them beside the error rates.",
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


def _numbers(config: StudyConfig, material: Material, results: Sequence[Result]) -> dict[str, Any]:
    tokenizers = {}
    for result in results:
        codes = {key: value for key, value in result.codes.items() if key != "counts"}
        tokenizers[result.name] = {
            "codec": result.info.to_dict(),
            "about": dict(result.tokenizer.about),
            "tokens": dict(result.outcome.tokens.result),
            "codes": codes,
            "reconstruction": dict(result.reconstruction),
            "language_model": dict(result.model),
            "speech": dict(result.speech),
        }
    return {
        "corpus": {"name": material.corpus.name, "hash": material.hash, "seconds": material.seconds},
        "budget": {"steps": config.steps, "audio_hours": config.audio_hours, "batch": asdict(config.batch)},
        "tokenizers": tokenizers,
    }


def _span(values: Sequence[float]) -> str:
    low, high = (f"{value:.2f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
