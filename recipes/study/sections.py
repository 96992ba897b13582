"""The report's sections of numbers, each with its table and its picture."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from codec.metrics import Column
from codec.runs import duration
from recipes.evaluation.slm_evaluation import CEILING, REFERENCE
from recipes.report import Curve, bars_picture, code_histogram, curves_picture, number, rate_with_interval
from recipes.study.config import StudyConfig
from recipes.study.page import Block, Paragraph, Picture, Points, Section, Table
from recipes.study.result import Result, interval
from recipes.study.training import ALONE, READ


def tokens_section(output: Path, results: Sequence[Result]) -> Section:
    """How the codes are used."""
    rows = []
    for result in results:
        books = result.codes["codebooks"]
        sizes = list(dict.fromkeys(book["size"] for book in books))
        size = f"{sizes[0]:,}" if len(sizes) == 1 else f"{min(sizes):,}–{max(sizes):,}"
        rows.append(
            [
                result.name,
                f"{result.info.frame_rate:g}",
                size if len(books) == 1 else f"{len(books)} × {size}",
                f"{100 * np.mean([book['used'] / book['size'] for book in books]):.1f} %",
                f"{np.mean([book['perplexity'] for book in books]):,.0f}",
                f"{result.codes['nominal_bitrate']:,.0f}",
                f"{result.codes['entropy_bitrate']:,.0f}",
                result.info.fingerprint,
            ]
        )
    header = [
        "",
        "frames/s",
        "codes",
        "in use",
        "perplexity",
        "bit/s as stored",
        "bit/s by entropy",
        "fingerprint",
    ]
    counts = {result.name: [np.array(book) for book in result.codes["counts"]] for result in results}
    code_histogram(output / "codes.png", counts)
    return Section(
        "Codes",
        [
            Table(header, rows),
            Paragraph(
                "Over the training recordings. Perplexity: as many equally frequent codes would carry as much; with "
                "several quantizers the mean of theirs. Bit/s by entropy: of an ideal coder that knows the frequencies "
                "and no context."
            ),
            Picture("codes.png", "codes by frequency"),
        ],
    )


def prediction_section(output: Path, results: Sequence[Result]) -> Section:
    """What codes cost that are predicted, and how that was learnt."""
    header = [
        "",
        "as stored",
        "unigram",
        "bigram",
        "trigram",
        "language model",
        "given the text",
        "bits a token",
    ]
    rows, bars, curves = [], {}, {}
    for result in results:
        tokens_a_second = result.info.frame_rate * result.info.num_quantizers
        values = [result.codes["nominal_bitrate"], *result.ngram_bits]
        values += [result.model_bits(ALONE), result.model_bits(READ)]
        rows.append(
            [
                result.name,
                *(bits(value) for value in values),
                f"{result.model_bits(ALONE) / tokens_a_second:.2f}",
            ]
        )
        bars[result.name] = dict(zip(header[1:7], values, strict=True))
    bars_picture(output / "bits.png", bars, "bit/s of held-out speech")
    for name, title in ((ALONE, "speech alone, bit/s"), (READ, "given its text, bit/s")):
        lines = []
        for result in results:
            points = [point for point in result.model["curve"] if point.get(name) is not None]
            if points:
                x, y = ([point[key] for point in points] for key in ("audio_hours", name))
                lines.append(Curve(x, y, result.name, marker=True))
        if lines:
            curves[title] = lines
    curves_picture(output / "learning.png", curves, "hours of speech trained on")
    models = ", ".join(f"{result.name} {result.model['parameters'] / 1e6:.1f} M" for result in results)
    return Section(
        "Prediction",
        [
            Table(header, rows),
            Paragraph(
                "Bits a second that held-out codes cost: stored, by n-gram models of the training codes (modified "
                "Kneser-Ney, interpolated), by the language model for speech alone, and by the same model for speech "
                f"after its text. Bits a token: speech alone. Parameters with embeddings: {models}."
            ),
            Picture("bits.png", "bits a second by model"),
            Picture("learning.png", "learning curves"),
        ],
    )


def reconstruction_section(output: Path, results: Sequence[Result]) -> Section:
    """What comes back from the codecs."""
    columns = [Column(**column) for column in results[0].reconstruction["columns"]]
    titles = [column.heading for column in columns]
    rows = []
    for result in results:
        for system, label in (
            ("recording", "recording"),
            ("vocoder", f"vocoder of {result.name} on true mels"),
            ("codec", result.name),
        ):
            values = result.reconstruction["systems"].get(system)
            if values is None or (system == "recording" and result is not results[0]):
                continue  # the recordings are the same for all
            cells = [number(values.get(c.key, {}).get("mean"), c) for c in columns]
            rates = [
                rate_with_interval(result.rate(system, f"{unit}_error_rate"))
                for unit in ("word", "character")
            ]
            rows.append([label, *cells, *rates])
    blocks: list[Block] = [filled(["", *titles, "WER ↓", "CER ↓"], rows)]
    points = [result for result in results if not math.isnan(result.rate("codec").value)]
    if points:
        _rate_against_bitrate(output / "rate.png", points)
        blocks.append(Picture("rate.png", "word error rate against bitrate"))
    first = results[0].reconstruction
    by = f", error rates by {first['asr']}" if first["asr"] else ""
    blocks.append(
        Paragraph(
            f"{first['utterances']} held-out recordings ({duration(first['seconds'])}), scored at 24 kHz{by}."
        )
    )
    if notes := [f"Not measured: {name} ({reason})." for name, reason in first["skipped"].items()]:
        blocks.append(Points(notes))
    return Section("Reconstruction", blocks)


def _rate_against_bitrate(path: Path, results: Sequence[Result]) -> None:
    def points(x: Sequence[float]) -> list[Curve]:
        found = []
        for result, bitrate in zip(results, x, strict=True):
            system = result.model_system
            found.append(
                Curve([bitrate], [100 * result.rate("codec").value], f"{result.name}, codec", marker=True)
            )
            read = result.spoken(system).value if system else float("nan")
            if not math.isnan(read):
                found.append(Curve([bitrate], [100 * read], f"{result.name}, language model", marker=True))
        return found

    panels = {"word error rate (%)": points([result.codes["nominal_bitrate"] for result in results])}
    curves_picture(path, panels, "bit/s as stored")


def speech_section(config: StudyConfig, results: Sequence[Result]) -> Section:
    """How well the language models read aloud."""
    rows = []
    for result in results:
        for system, numbers in result.speech.get("systems", {}).items():
            if system == REFERENCE and result is not results[0]:
                continue
            of_model = system == result.model_system
            label = {REFERENCE: "recordings", CEILING: f"recordings through {result.name}"}.get(
                system, f"language model on {result.name}"
            )
            rows.append(
                [
                    label,
                    rate_with_interval(interval(numbers["word_error_rate"])),
                    rate_with_interval(interval(numbers["character_error_rate"])),
                    _percent(numbers["ended"]["value"]) if of_model else "–",
                    _percent(numbers["plausible"]) if of_model else "–",
                    _plain(numbers["duration_ratio"]) if of_model else "–",
                ]
            )
    if not rows:
        return Section("Reading aloud", [])
    header = ["", "WER ↓", "CER ↓", "ended by itself ↑", "… at ½ to 2 × the length ↑", "length / recording"]
    sentences = next((system["sentences"] for r in results for system in r.speech["systems"].values()), 0)
    return Section(
        "Reading aloud",
        [
            filled(header, rows),
            Paragraph(
                f"{sentences} held-out sentences, the best of {config.speaking.candidates} by the model's own hearing."
                if config.speaking.candidates > 1
                else f"{sentences} held-out sentences, each spoken once."
            ),
        ],
    )


def stability_section(output: Path, results: Sequence[Result]) -> Section:
    """What a change of the recording does to the codes."""
    shares = {result.name: result.reconstruction["stability"]["shares"] for result in results}
    names = list(dict.fromkeys(name for found in shares.values() for name in found))
    if not names:
        return Section("Stability of the codes", [])
    rows: list[list[str]] = []
    bars: dict[str, dict[str, float]] = {}
    for name in names:
        cells = []
        for result in results:
            share = shares[result.name].get(name)
            if share is None or share["unchanged"] is None:
                cells.append("–")
                continue
            aligned = "" if share["aligned"] is None else f" ({share['aligned'] * 100:.1f})"
            cells.append(f"{share['unchanged'] * 100:.1f}{aligned} %")
            bars.setdefault(name, {})[result.name] = share["unchanged"] * 100
        rows.append([name, *cells])
    bars_picture(output / "stability.png", bars, "codes that stay (%)")
    tried = results[0].reconstruction["stability"]["utterances"]
    return Section(
        "Stability of the codes",
        [
            Table(["", *(result.name for result in results)], rows),
            Paragraph(
                "Share of codes that stay the same, place by place, when the recording is changed; behind it for "
                f"shifts, what stays under the best alignment (1 − edits / frames). Over {tried} held-out recordings."
            ),
            Picture("stability.png", "codes that stay"),
        ],
    )


def filled(header: list[str], rows: list[list[str]]) -> Table:
    """A table without the columns that nobody fills."""
    kept = [0, *(i for i in range(1, len(header)) if any(row[i] != "–" for row in rows))]
    return Table([header[i] for i in kept], [[row[i] for i in kept] for row in rows])


def bits(value: float) -> str:
    """Bits a second; a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:,.1f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
