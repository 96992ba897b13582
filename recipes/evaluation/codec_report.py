"""What `evaluate-codec` leaves: results.json, report.md, utterances.parquet, pictures, audio to hear."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codec.foundation import write_json, write_text
from codec.metrics import DEV_LOG_MEL, Column
from codec.nn.mel import MelConfig
from data import write_audio
from recipes.evaluation.codec_evaluation import (
    SCORING_RATE,
    CodecEvaluation,
    CodecResult,
    Example,
    UtteranceRow,
)
from recipes.evaluation.probes import CodecProbe, QuantizerProbe
from recipes.reporting.page import as_markdown
from recipes.reporting.pictures import SpectrogramRow, code_histogram, spectrogram_picture, waveform_row
from recipes.reporting.tables import Field, Table, rate, show, without_nan, words, write_parquet


def summary(evaluation: CodecEvaluation, facts: dict[str, Any]) -> dict[str, Any]:
    """The numbers as JSON; `facts` say what was evaluated on what."""
    systems: dict[str, Any] = {}
    for system in evaluation.systems:
        entry: dict[str, Any] = {}
        for column in evaluation.columns:
            mean, count = evaluation.mean(system, column.key)
            if count:
                entry[column.key] = {"mean": mean, "utterances": count}
        for unit, name in (("words", "word_error_rate"), ("characters", "character_error_rate")):
            interval = evaluation.error_rate(system, unit)
            if not math.isnan(interval.value):
                entry[name] = interval.to_dict()
        systems[system] = entry
    return {
        **{key: value for key, value in facts.items() if key != "codecs"},
        "utterances": evaluation.utterances,
        "seconds": evaluation.seconds,
        "systems": systems,
        "codecs": {
            codec.name: {**facts["codecs"][codec.name], **_of_codec(codec)} for codec in evaluation.codecs
        },
        "skipped": evaluation.skipped,
        "failures": evaluation.failures,
    }


def _of_codec(codec: CodecResult) -> dict[str, Any]:
    return {
        "frames": codec.frames,
        "codebooks": [asdict(s) for s in codec.codes.statistics()],
        "bitrate": {
            "nominal": codec.codes.nominal_bitrate(codec.frame_rate),
            "entropy": codec.codes.entropy_bitrate(codec.frame_rate),
        },
        "speed": asdict(codec.speed),
        "stability": {
            "utterances": codec.stability.utterances,
            "shares": {name: without_nan(asdict(share)) for name, share in codec.stability.shares.items()},
        },
    }


def write_codec_report(
    output: Path, evaluation: CodecEvaluation, facts: dict[str, Any], probes: Sequence[CodecProbe] = ()
) -> str:
    """Write everything into `output` and return the Markdown table of results.

    `facts`: the `codecs` (by name: the fields of CodecInfo, and where it is), the `corpus` (name, split, gain), the
    `asr`, the `command`.
    """
    output.mkdir(parents=True, exist_ok=True)
    write_parquet(output / "utterances.parquet", [_flat(row, evaluation.columns) for row in evaluation.rows])
    content = summary(evaluation, facts)
    write_json(output / "results.json", content)
    code_histogram(output / "codes.png", {codec.name: codec.codes.counts for codec in evaluation.codecs})
    for example in evaluation.examples:
        _write_example(output, example, evaluation.codecs)
    if evaluation.examples:
        _draw_example(output / "spectrogram.png", evaluation.examples[0], evaluation.codecs)
    table = systems_table(content, evaluation.columns)
    codecs = content["codecs"]
    rates = {codec.name: {"frame_rate": codec.frame_rate} for codec in evaluation.codecs}
    page = as_markdown(
        "evaluate_codec",
        content=content,
        systems=table,
        scored_mel=_mel_text(DEV_LOG_MEL),
        own_mels={
            codec.name: _mel_text(codec.mel_config)
            for codec in evaluation.codecs
            if codec.mel_config is not None and codec.mel_config != DEV_LOG_MEL
        },
        other_rates=any(codec.sampling_rate != SCORING_RATE for codec in evaluation.codecs),
        scoring_khz=SCORING_RATE / 1_000,
        heard=any("word_error_rate" in entry for entry in content["systems"].values()),
        codes=codes_table({name: {**entry, **rates[name]} for name, entry in codecs.items()}),
        tried=max((entry["stability"]["utterances"] for entry in codecs.values()), default=0),
        stability=stability_table({name: entry["stability"]["shares"] for name, entry in codecs.items()}),
        probes=probes_table(probes) if probes else None,
        speeds=_speeds_table(codecs),
        speed=evaluation.codecs[0].speed,
        examples=bool(evaluation.examples),
    )
    write_text(output / "report.md", page)
    return str(table)


def systems_table(content: Mapping[str, Any], columns: Sequence[Column], more: Sequence[Field] = ()) -> Table:
    """Systems below each other, metrics beside each other; rows are the name and the entry of each system.

    content: of results.json.
    """

    def mean(column: Column) -> Field:
        return Field.of(column, lambda row: row[1].get(column.key, {}).get("mean"))

    fields = [
        words("", lambda row: row[0]),
        *(mean(column) for column in columns),
        rate("WER", lambda row: row[1].get("word_error_rate"), "lower"),
        rate("CER", lambda row: row[1].get("character_error_rate"), "lower"),
        *more,
    ]
    return Table.of(content["systems"].items(), fields)


def codes_table(codecs: Mapping[str, Any], more: Sequence[Field] = ()) -> Table:
    """How the codebooks are used; `codecs`: by name, with `frame_rate`, `codebooks` and `bitrate`."""

    def mean(value: str) -> Any:
        return lambda row: sum(book[value] for book in row[1]["codebooks"]) / len(row[1]["codebooks"])

    def in_use(row: tuple[str, Mapping[str, Any]]) -> float:
        books = row[1]["codebooks"]
        return sum(book["used"] / book["size"] for book in books) / len(books)

    fields = [
        words("", lambda row: row[0]),
        Field("frames/s", lambda row: f"{row[1]['frame_rate']:g}"),
        Field("codes", lambda row: _sizes([book["size"] for book in row[1]["codebooks"]])),
        rate("in use", in_use),
        Field("perplexity", mean("perplexity")),
        Field(
            "entropy (bits a frame)", lambda row: sum(book["entropy_bits"] for book in row[1]["codebooks"]), 2
        ),
        Field("bit/s as stored", lambda row: row[1]["bitrate"]["nominal"]),
        Field("bit/s by entropy", lambda row: row[1]["bitrate"]["entropy"]),
        *more,
    ]
    return Table.of(codecs.items(), fields)


def stability_table(shares: Mapping[str, Mapping[str, Any]]) -> Table:
    """Perturbations below each other, codecs beside each other; `shares`: by codec and perturbation, as JSON."""
    # codecs of different rates are tried with different resamplings
    names = list(dict.fromkeys(name for found in shares.values() for name in found))

    def cell(share: Mapping[str, Any] | None) -> str | None:
        if share is None or share["unchanged"] is None:
            return None
        aligned = "" if share["aligned"] is None else f" ({share['aligned'] * 100:.1f})"
        return f"{share['unchanged'] * 100:.1f}{aligned} %"

    rows = [[name, *(show(cell(found.get(name))) for found in shares.values())] for name in names]
    return Table(["", *shares], rows)


def _sizes(sizes: Sequence[int]) -> str:
    size = f"{max(sizes):,}" if len(set(sizes)) == 1 else f"{min(sizes):,}–{max(sizes):,}"
    return size if len(sizes) == 1 else f"{len(sizes)} × {size}"


def probes_table(probes: Sequence[CodecProbe]) -> Table:
    """Quantizers below each other."""

    def name(row: tuple[CodecProbe, QuantizerProbe]) -> str:
        probe, found = row
        return probe.codec if len(probe.quantizers) == 1 else f"{probe.codec}, {found.quantizer + 1}"

    fields = [
        words("", name),
        Field("characters (bits a frame)", lambda row: row[1].characters and row[1].characters.bits, 3),
        rate("of their entropy", lambda row: row[1].characters and row[1].characters.share),
        Field("speaker (bits a frame)", lambda row: row[1].speakers and row[1].speakers.bits, 3),
        rate("of its entropy", lambda row: row[1].speakers and row[1].speakers.share),
        Field(
            "speaker told by an utterance",
            lambda row: row[1].speaker and row[1].speaker.accuracy.value,
            percent=True,
        ),
        Field("chance", lambda row: row[1].speaker and row[1].speaker.chance, percent=True),
    ]
    return Table.of(((probe, found) for probe in probes for found in probe.quantizers), fields)


def _speeds_table(codecs: Mapping[str, Any]) -> Table:
    def times(title: str, step: str) -> Field:
        return Field(title, lambda row: row[1]["speed"][step], 1, unit=" ×")

    fields = [words("", lambda row: row[0]), times("encode", "encode"), times("decode", "decode")]
    fields += [
        times("both", "together"),
        Field("seconds of audio", lambda row: row[1]["speed"]["audio_seconds"]),
    ]
    return Table.of(codecs.items(), fields)


def _mel_text(config: MelConfig) -> str:
    scale = "Slaney" if config.mel_scale == "slaney" else "HTK"
    normalised = ", area-normalised" if config.norm == "slaney" else ""
    return (
        f"{config.sampling_rate / 1_000:g} kHz, FFT and Hann window {config.n_fft:,}, hop {config.hop_length}, "
        f"{config.n_mels} {scale} bands{normalised} {config.f_min / 1_000:g}–{config.f_max / 1_000:g} kHz, "
        f"{'magnitude' if config.power == 1 else 'power'}, natural log, floor {config.floor:g}"
    )


def _flat(row: UtteranceRow, columns: list[Column]) -> dict[str, Any]:
    words, characters = row.scores.words, row.scores.characters
    return {
        "id": row.utterance.id,
        "system": row.system,
        "codec": row.codec,
        "speaker": row.utterance.speaker,
        "seconds": row.seconds,
        "frames": row.frames,
        **{column.key: without_nan(row.value(column.key)) for column in columns},
        "text": row.utterance.text,
        "transcript": row.scores.transcript,
        "word_errors": words.errors if words else None,
        "words": words.length if words else None,
        "character_errors": characters.errors if characters else None,
        "characters": characters.length if characters else None,
    }


def _write_example(output: Path, example: Example, codecs: list[CodecResult]) -> None:
    folder = output / "examples"
    folder.mkdir(exist_ok=True)
    name = example.id.replace("/", "_")
    write_audio(folder / f"{name}.recording.wav", example.recording, SCORING_RATE)
    for codec in codecs:
        made = example.reconstructions[codec.name]
        # one codec needs no name of its own
        part = "codec" if len(codecs) == 1 else codec.name.replace("/", "_").replace(":", "_")
        write_audio(folder / f"{name}.{part}.wav", made.audio, codec.sampling_rate)
        if made.vocoded is not None:
            suffix = "vocoder" if len(codecs) == 1 else f"{part}.vocoder"
            write_audio(folder / f"{name}.{suffix}.wav", made.vocoded, codec.sampling_rate)


def _draw_example(path: Path, example: Example, codecs: list[CodecResult]) -> None:
    rows = [waveform_row("recording", example.recording, SCORING_RATE)]
    for codec in codecs:
        made = example.reconstructions[codec.name]
        if made.mel is not None and codec.mel_config is not None:
            seconds = len(made.audio) / codec.sampling_rate
            title = f"{codec.name}, before the vocoder: the decoder's mel"
            rows.append(SpectrogramRow(title, made.mel, seconds, codec.mel_config))
        after = ", after the vocoder: the audio's mel" if made.mel is not None else ""
        rows.append(waveform_row(codec.name + after, made.audio, codec.sampling_rate))
    spectrogram_picture(path, rows)
