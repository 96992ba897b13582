"""The report's sections of numbers, each with its table and its picture."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from codec.foundation import duration
from recipes.reporting.page import Block, Paragraph, Picture, Points, Section, Table
from recipes.reporting.pictures import (
    Curve,
    bars_picture,
    code_histogram,
    curves_picture,
    number,
    rate_with_interval,
)
from recipes.study.comparison import CommonRows, Comparison
from recipes.study.result import Result
from recipes.study.table_cells import bits, bits_with_interval, columns_of, filled, not_measured
from recipes.study.training import ALONE, READ, VALIDATION_BLOCKS


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


def prediction_section(output: Path, results: Sequence[Result], comparison: Comparison) -> Section:
    """What codes cost that are predicted, and how that was learnt."""
    header = [
        "", "s measured", "as stored", "unigram", "bigram", "trigram", "language model", "given the text",
        "the text saves", "bits a token",
    ]  # fmt: skip
    rows, bars, curves = [], {}, {}
    for result in results:
        told = comparison.of(result.name)
        stored = result.codes["nominal_bitrate"]
        rows.append(
            [
                result.name,
                f"{told.seconds:,.0f}",
                *(bits(value) for value in (stored, *told.ngrams)),
                *(bits_with_interval(value) for value in (told.alone, told.read, told.saved)),
                "–" if math.isnan(told.bits_a_token) else f"{told.bits_a_token:.2f}",
            ]
        )
        values = [stored, *told.ngrams, told.alone.value, told.read.value]
        bars[result.name] = dict(zip(header[2:8], values, strict=True))
    bars_picture(output / "bits.png", bars, "bit/s of held-out speech")
    for name, title in (
        (ALONE, "validation in training, speech alone, bit/s"),
        (READ, "given its text, bit/s"),
    ):
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
                "Bits a second that held-out recordings cost: as stored, by n-gram models of the training codes "
                "(modified Kneser-Ney, interpolated), by the language model for speech alone, and by the same model "
                "for speech after its text, with 95 % bootstrap intervals over recordings. Each recording is read "
                f"whole and by itself; all columns are over the same {_recordings(comparison.alone)} for every "
                f"tokenizer, those given the text over the {_recordings(comparison.read)} of them that have one, and "
                "what the text saves is the difference over these. Bits a token: speech alone. Parameters with "
                f"embeddings: {models}."
            ),
            *([Points(notes)] if (notes := comparison.notes()) else []),
            Picture("bits.png", "bits a second by model"),
            Picture("learning.png", "learning curves"),
            Paragraph(
                "Learning curves are what training saw while it ran: bits a second of its first "
                f"{VALIDATION_BLOCKS} validation blocks at most, in which recordings longer than a block are cut and "
                "those without a text count as speech alone. They say how each model learnt; compare tokenizers by the "
                "table."
            ),
        ],
    )


def _recordings(common: CommonRows) -> str:
    return f"{len(common.ids):,} recordings ({duration(common.seconds)})"


def reconstruction_section(output: Path, results: Sequence[Result]) -> Section:
    """What comes back from the codecs."""
    columns = columns_of(result.reconstruction["columns"] for result in results)
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
    judged = _by_result(results, lambda result: _judged(result.reconstruction))
    recogniser = next((r.reconstruction["asr"] for r in results if r.reconstruction["asr"]), None)
    by = f", error rates by {recogniser}" if recogniser else ""
    blocks.append(Paragraph(f"{judged}, scored at 24 kHz{by}."))
    if notes := not_measured(result.reconstruction["skipped"] for result in results):
        blocks.append(Points(notes))
    return Section("Reconstruction", blocks)


def _judged(reconstruction: Mapping[str, Any]) -> str:
    seconds = duration(reconstruction["seconds"])
    lost = len(reconstruction["failures"])
    unreadable = f"; {lost} could not be read" if lost else ""
    return f"{reconstruction['utterances']:,} held-out recordings ({seconds}{unreadable})"


def _by_result(results: Sequence[Result], say: Callable[[Result], str]) -> str:
    """What is to be said of every tokenizer: once, where it is the same."""
    said = {result.name: say(result) for result in results}
    if len(set(said.values())) == 1:
        return next(iter(said.values()))
    return "; ".join(f"{name}: {words}" for name, words in said.items())


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
    tried = _by_result(
        results, lambda result: f"{result.reconstruction['stability']['utterances']} held-out recordings"
    )
    return Section(
        "Stability of the codes",
        [
            Table(["", *(result.name for result in results)], rows),
            Paragraph(
                "Share of codes that stay the same, place by place, when the recording is changed; behind it for "
                f"shifts, what stays under the best alignment (1 − edits / frames). Over {tried}."
            ),
            Picture("stability.png", "codes that stay"),
        ],
    )
