"""What `evaluate-codec` leaves: results.json, report.md, utterances.parquet, pictures, audio to hear."""

import math
from collections.abc import Sequence
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
from recipes.evaluation.probes import CodecProbe, probes_table
from recipes.reporting.pictures import (
    SpectrogramRow,
    code_histogram,
    markdown_table,
    number,
    rate_with_interval,
    spectrogram_picture,
    waveform_row,
)
from recipes.reporting.tables import write_parquet


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
            "shares": {name: _for_json(asdict(share)) for name, share in codec.stability.shares.items()},
        },
    }


def _for_json(value: Any) -> Any:
    """Null for what could not be measured, however deep."""
    if isinstance(value, dict):
        return {name: _for_json(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_for_json(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_codec_report(
    output: Path, evaluation: CodecEvaluation, facts: dict[str, Any], probes: Sequence[CodecProbe] = ()
) -> str:
    """Write everything into `output` and return the Markdown table of results.

    `facts`: the `codecs` (by name: the fields of CodecInfo, and where it is), the `corpus` (name, split, gain), the
    `asr`, the `command`.
    """
    output.mkdir(parents=True, exist_ok=True)
    write_parquet(output / "utterances.parquet", [_flat(row, evaluation.columns) for row in evaluation.rows])
    write_json(output / "results.json", summary(evaluation, facts))
    code_histogram(output / "codes.png", {codec.name: codec.codes.counts for codec in evaluation.codecs})
    for example in evaluation.examples:
        _write_example(output, example, evaluation.codecs)
    if evaluation.examples:
        _draw_example(output / "spectrogram.png", evaluation.examples[0], evaluation.codecs)
    table = results_table(evaluation)
    write_text(output / "report.md", _page(evaluation, facts, table, probes))
    return table


def results_table(evaluation: CodecEvaluation) -> str:
    """Systems below each other, metrics beside each other."""
    header = ["", *(column.heading for column in evaluation.columns), "WER ↓", "CER ↓"]
    rows = []
    for system in evaluation.systems:
        cells = [number(evaluation.mean(system, column.key)[0], column) for column in evaluation.columns]
        rates = [evaluation.error_rate(system, unit) for unit in ("words", "characters")]
        rows.append([system, *cells, *(rate_with_interval(rate) for rate in rates)])
    # a column that nobody fills (no transcripts, no recogniser) is left out
    filled = [0, *(i for i in range(1, len(header)) if any(row[i] != "–" for row in rows))]
    return markdown_table([header[i] for i in filled], [[row[i] for i in filled] for row in rows])


def _page(
    evaluation: CodecEvaluation, facts: dict[str, Any], table: str, probes: Sequence[CodecProbe]
) -> str:
    corpus = facts["corpus"]
    speed = evaluation.codecs[0].speed
    pictures = "![codes by frequency](codes.png)"
    if evaluation.examples:
        pictures = f"![before and after](spectrogram.png)\n\n{pictures}"
    named = "; ".join(
        f"`{name}` ({about['location']}), fingerprint {about['fingerprint']}"
        for name, about in facts["codecs"].items()
    )
    parts = [
        f"# {', '.join(codec.name for codec in evaluation.codecs)} on {corpus['name']}",
        f"`{facts['command']}`",
        f"{named}. {evaluation.utterances:,} utterances ({evaluation.seconds / 60:.1f} minutes) of the "
        f"{corpus['split']} split, gain {corpus['gain']:g}.",
        table,
        "\n".join(f"- {note}" for note in _notes(evaluation, facts)),
        "## Codes",
        _codes_table(evaluation),
        "Bit/s as stored: log2 of the codebook's size for every code. By entropy: what an ideal coder without memory "
        "would need for the codes counted here. Perplexity: as many equally frequent codes would carry as much. With "
        "several quantizers, shares and perplexities are means; results.json has each.",
    ]
    if any(codec.stability.utterances for codec in evaluation.codecs):
        parts += [
            "## Stability of the codes",
            _stability_table(evaluation),
            "Share of codes that stay the same, place by place, when the recording is changed; behind it for shifts, "
            "what stays under the best alignment (1 − insertions, deletions and substitutions / frames). Recordings "
            f"tried: {max(codec.stability.utterances for codec in evaluation.codecs)}.",
        ]
    if probes:
        parts += [
            "## What the codes say",
            probes_table(probes),
            "Bits by which a code, seen alone, tells better than chance which character is spoken in the middle of its "
            "frame, or which speaker: learned on four fifths of the utterances, tried on the last, in turn (a lower "
            "bound of the mutual information; 95 % bootstrap intervals over utterances). A word's characters share its "
            "time evenly. A speaker is told by all codes of an utterance together (naive Bayes).",
        ]
    parts += [
        "## Speed",
        _speed_table(evaluation),
        f"Multiples of real time on {speed.device}, {speed.threads} threads, batch 1, float32.",
        pictures,
        "Audio of the first utterances is in [examples](examples); every utterance is a row of "
        "`utterances.parquet`."
        if evaluation.examples
        else "Every utterance is a row of `utterances.parquet`.",
    ]
    return "\n\n".join(parts) + "\n"


def _notes(evaluation: CodecEvaluation, facts: dict[str, Any]) -> list[str]:
    notes = [
        f"log-mel L1: mean over frames and bands of an utterance, then over utterances; {_mel_text(DEV_LOG_MEL)}."
    ]
    for codec in evaluation.codecs:
        if codec.mel_config is not None and codec.mel_config != DEV_LOG_MEL:
            notes.append(
                f"Before the vocoder of {codec.name} it is measured in the vocoder's own definition: "
                f"{_mel_text(codec.mel_config)}."
            )
    if any(codec.sampling_rate != SCORING_RATE for codec in evaluation.codecs):
        notes.append(
            f"Every codec is compared with the recording at {SCORING_RATE / 1_000:g} kHz, whatever its own rate."
        )
    if any(not math.isnan(evaluation.error_rate(system, "words").value) for system in evaluation.systems):
        notes.append(
            f"Word and character error rates (WER, CER) by {facts['asr']}, with 95 % bootstrap intervals over "
            "utterances; text is compared in lower case without punctuation. Read them beside the recordings' own."
        )
    notes += [f"Not measured: {name} ({reason})." for name, reason in evaluation.skipped.items()]
    notes += [f"Left out: {failure['reason']}." for failure in evaluation.failures]
    return notes


def _codes_table(evaluation: CodecEvaluation) -> str:
    rows = []
    for codec in evaluation.codecs:
        books = codec.codes.statistics()
        sizes = {book.size for book in books}
        size = f"{max(sizes):,}" if len(sizes) == 1 else f"{min(sizes):,}–{max(sizes):,}"
        rows.append(
            [
                codec.name,
                f"{codec.frame_rate:g}",
                size if len(books) == 1 else f"{len(books)} × {size}",
                f"{sum(book.used / book.size for book in books) / len(books):.1%}".replace("%", " %"),
                f"{sum(book.perplexity for book in books) / len(books):,.0f}",
                f"{sum(book.entropy_bits for book in books):.2f}",
                f"{codec.codes.nominal_bitrate(codec.frame_rate):,.0f}",
                f"{codec.codes.entropy_bitrate(codec.frame_rate):,.0f}",
            ]
        )
    header = ["", "frames/s", "codes", "in use", "perplexity", "entropy (bits a frame)"]
    return markdown_table([*header, "bit/s as stored", "bit/s by entropy"], rows)


def _stability_table(evaluation: CodecEvaluation) -> str:
    # codecs of different rates are tried with different resamplings
    names = list(dict.fromkeys(name for codec in evaluation.codecs for name in codec.stability.shares))
    rows = []
    for name in names:
        cells = []
        for codec in evaluation.codecs:
            share = codec.stability.shares.get(name)
            if share is None or math.isnan(share.unchanged):
                cells.append("–")
                continue
            aligned = "" if share.aligned is None else f" ({share.aligned * 100:.1f})"
            cells.append(f"{share.unchanged * 100:.1f}{aligned} %")
        rows.append([name, *cells])
    return markdown_table(["", *(codec.name for codec in evaluation.codecs)], rows)


def _speed_table(evaluation: CodecEvaluation) -> str:
    rows = [
        [
            codec.name,
            *(f"{value:.1f} ×" for value in (codec.speed.encode, codec.speed.decode, codec.speed.together)),
            f"{codec.speed.audio_seconds:.0f}",
        ]
        for codec in evaluation.codecs
    ]
    return markdown_table(["", "encode", "decode", "both", "seconds of audio"], rows)


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
        **{column.key: _defined(row.value(column.key)) for column in columns},
        "text": row.utterance.text,
        "transcript": row.scores.transcript,
        "word_errors": words.errors if words else None,
        "words": words.length if words else None,
        "character_errors": characters.errors if characters else None,
        "characters": characters.length if characters else None,
    }


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


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
            rows.append(
                SpectrogramRow(f"{codec.name}, before the vocoder: the decoder's mel", made.mel, seconds)
            )
        after = ", after the vocoder: the audio's mel" if made.mel is not None else ""
        rows.append(waveform_row(codec.name + after, made.audio, codec.sampling_rate))
    spectrogram_picture(path, rows)
