"""What `evaluate-codec` leaves: results.json, report.md, utterances.parquet, pictures, audio to hear."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codec.mel import MelConfig
from codec.metrics import DEV_LOG_MEL, Column
from codec.runs import write_json, write_text
from data import write_audio
from recipes.evaluation.codec_evaluation import CODEC, CodecEvaluation, Example, UtteranceRow
from recipes.evaluation.tables import write_parquet
from recipes.report import (
    SpectrogramRow,
    code_histogram,
    markdown_table,
    number,
    rate_with_interval,
    spectrogram_picture,
    waveform_row,
)


def summary(evaluation: CodecEvaluation, facts: dict[str, Any]) -> dict[str, Any]:
    """The numbers as JSON; `facts` say what was evaluated on what."""
    frame_rate = facts["codec"]["frame_rate"]
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
                entry[name] = asdict(interval)
        systems[system] = entry
    return {
        **facts,
        "utterances": len(evaluation.of(CODEC)),
        "seconds": evaluation.seconds,
        "frames": evaluation.frames,
        "systems": systems,
        "codebooks": [asdict(s) for s in evaluation.codes.statistics()],
        "bitrate": {
            "nominal": evaluation.codes.nominal_bitrate(frame_rate),
            "entropy": evaluation.codes.entropy_bitrate(frame_rate),
        },
        "speed": asdict(evaluation.speed),
        "skipped": evaluation.skipped,
        "failures": evaluation.failures,
    }


def write_codec_report(output: Path, evaluation: CodecEvaluation, facts: dict[str, Any]) -> str:
    """Write everything into `output` and return the Markdown table of results.

    `facts`: the `codec` (fields of CodecInfo), the `corpus` (name, split, gain), the `asr`, the `command`.
    """
    output.mkdir(parents=True, exist_ok=True)
    sampling_rate = facts["codec"]["sampling_rate"]
    write_json(output / "results.json", summary(evaluation, facts))
    write_parquet(output / "utterances.parquet", [_flat(row, evaluation.columns) for row in evaluation.rows])
    code_histogram(output / "codes.png", evaluation.codes.counts)
    for example in evaluation.examples:
        _write_example(output, example, sampling_rate)
    if evaluation.examples:
        _draw_example(
            output / "spectrogram.png", evaluation.examples[0], sampling_rate, evaluation.mel_config
        )
    table = results_table(evaluation)
    write_text(output / "report.md", _page(evaluation, facts, table))
    return table


def results_table(evaluation: CodecEvaluation) -> str:
    """Systems below each other, metrics beside each other."""
    header = ["", *(_title(column) for column in evaluation.columns), "WER ↓", "CER ↓"]
    rows = []
    for system in evaluation.systems:
        cells = [number(evaluation.mean(system, column.key)[0], column) for column in evaluation.columns]
        rates = [evaluation.error_rate(system, unit) for unit in ("words", "characters")]
        rows.append([system, *cells, *(rate_with_interval(rate) for rate in rates)])
    # a column that nobody fills (no transcripts, no recogniser) is left out
    filled = [0, *(i for i in range(1, len(header)) if any(row[i] != "–" for row in rows))]
    return markdown_table([header[i] for i in filled], [[row[i] for i in filled] for row in rows])


def _page(evaluation: CodecEvaluation, facts: dict[str, Any], table: str) -> str:
    codec, corpus, speed = facts["codec"], facts["corpus"], evaluation.speed
    frame_rate, mel_config = codec["frame_rate"], evaluation.mel_config
    codebooks = markdown_table(
        ["codebook", "codes", "in use", "perplexity", "entropy (bits a code)"],
        [
            [str(q), f"{s.size:,}", f"{s.used:,}", f"{s.perplexity:,.0f}", f"{s.entropy_bits:.2f}"]
            for q, s in enumerate(evaluation.codes.statistics())
        ],
    )
    notes = [
        f"log-mel L1: mean over frames and bands of an utterance, then over utterances; {_mel_text(DEV_LOG_MEL)}."
    ]
    if mel_config is not None and mel_config != DEV_LOG_MEL:
        notes.append(
            f"Before the vocoder it is measured in the vocoder's own definition: {_mel_text(mel_config)}."
        )
    if facts["asr"] is not None:
        notes.append(
            f"Word and character error rates (WER, CER) by {facts['asr']}, with 95 % bootstrap intervals over "
            "utterances; text is compared in lower case without punctuation. Read them beside the recordings' own."
        )
    notes += [f"Not measured: {reason}." for reason in evaluation.skipped.values()]
    notes += [f"Left out: {failure['reason']}." for failure in evaluation.failures]
    pictures = "![codes by frequency](codes.png)"
    if evaluation.examples:
        pictures = f"![before and after](spectrogram.png)\n\n{pictures}"
    return (
        "\n\n".join(
            [
                f"# {codec['name']} on {corpus['name']}",
                f"`{facts['command']}`",
                f"Codec `{codec['name']}`, fingerprint {codec['fingerprint']}; {len(evaluation.of(CODEC)):,} "
                f"utterances ({evaluation.seconds / 60:.1f} minutes) of the {corpus['split']} split, "
                f"gain {corpus['gain']:g}.",
                table,
                "\n".join(f"- {note}" for note in notes),
                "## Codes",
                codebooks,
                f"{frame_rate:g} frames a second: {evaluation.codes.nominal_bitrate(frame_rate):.0f} bit/s as stored, "
                f"{evaluation.codes.entropy_bitrate(frame_rate):.0f} bit/s by the entropy of the codes.",
                "## Speed",
                f"Encode {speed.encode:.0f} ×, decode {speed.decode:.0f} ×, both together {speed.together:.0f} × "
                f"real time ({speed.device}, {speed.threads} threads, batch 1, float32, "
                f"{speed.audio_seconds:.0f} s of audio).",
                pictures,
                "Audio of the first utterances is in [examples](examples); every utterance is a row of "
                "`utterances.parquet`."
                if evaluation.examples
                else "Every utterance is a row of `utterances.parquet`.",
            ]
        )
        + "\n"
    )


def _title(column: Column) -> str:
    return f"{column.title} {'↑' if column.better == 'higher' else '↓'}"


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


def _write_example(output: Path, example: Example, sampling_rate: int) -> None:
    folder = output / "examples"
    folder.mkdir(exist_ok=True)
    name = example.id.replace("/", "_")
    write_audio(folder / f"{name}.recording.wav", example.recording, sampling_rate)
    write_audio(folder / f"{name}.codec.wav", example.reconstruction.audio, sampling_rate)
    if example.reconstruction.vocoded is not None:
        write_audio(folder / f"{name}.vocoder.wav", example.reconstruction.vocoded, sampling_rate)


def _draw_example(path: Path, example: Example, sampling_rate: int, mel_config: MelConfig | None) -> None:
    made = example.reconstruction
    rows = [waveform_row("recording", example.recording, sampling_rate)]
    if made.mel is not None and mel_config is not None:
        seconds = len(made.audio) / sampling_rate
        rows.append(SpectrogramRow("before the vocoder: the decoder's mel", made.mel, seconds))
    rows.append(waveform_row("after the vocoder: the audio's mel", made.audio, sampling_rate))
    spectrogram_picture(path, rows)
