"""Tables of results from result files: codecs, language models, speed."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from codec.metrics import UTMOS, WAVEFORM_METRICS, Column, Interval, SpeakerSimilarity
from recipes.evaluation.codec_evaluation import BEFORE_VOCODER
from recipes.report import markdown_table, number, rate_with_interval
from recipes.results.files import ResultFile

NOTHING = "–"
# Of a codec's metrics those that tell most; each report has them all.
_SHOWN = (
    "log_mel_l1_before_vocoder", "log_mel_l1", "stoi", "pesq", "voicing_f1", "dnsmos_overall", "utmos",
    "speaker_similarity",
)  # fmt: skip


def results_section(
    codecs: Sequence[ResultFile], models: Sequence[ResultFile], benches: Sequence[ResultFile]
) -> str:
    """All tables, each under what it was measured with."""
    parts: list[str] = []
    for title, files, write in (
        ("### Codecs", codecs, codec_part),
        ("### Speech language models", models, model_part),
        ("### Speed", benches, bench_part),
    ):
        if files:
            parts.append(title)
        for file in files:
            parts += [file.origin, *write(file.content)]
    return "\n\n".join(parts)


# ---- codecs


def codec_part(content: Mapping[str, Any]) -> list[str]:
    """What was evaluated on what, and the table of systems."""
    corpus = content["corpus"]
    about = (
        f"{_several(content['utterances'], 'recording')} ({content['seconds'] / 60:.1f} minutes) of the "
        f"{corpus['split']} split of {PurePosixPath(corpus['name']).name}."
    )
    if content.get("asr"):
        about += f" Error rates by {content['asr']}."
    columns = _columns()
    header = ["", "bit/s", *(columns[key].heading for key in _SHOWN), "WER ↓", "CER ↓"]
    header += ["encode, × real time", "decode"]
    rows = [_system_row(name, entry, content, columns) for name, entry in content["systems"].items()]
    return [about, _without_empty(header, rows)]


def _system_row(
    name: str, entry: Mapping[str, Any], content: Mapping[str, Any], columns: Mapping[str, Column]
) -> list[str]:
    codec = content["codecs"].get(name)  # recordings, and vocoders on true mels, are none
    speed = codec["speed"] if codec else None
    return [
        name,
        f"{codec['bitrate']['nominal']:,.0f}" if codec else NOTHING,
        *(number(entry.get(key, {}).get("mean"), columns[key]) for key in _SHOWN),
        _rate(entry.get("word_error_rate")),
        _rate(entry.get("character_error_rate")),
        f"{speed['encode']:.0f}" if speed else NOTHING,
        f"{speed['decode']:.0f}" if speed else NOTHING,
    ]


def _columns() -> dict[str, Column]:
    known = [BEFORE_VOCODER, UTMOS.column, SpeakerSimilarity.column]
    known += [column for metric in WAVEFORM_METRICS for column in metric.columns]
    return {column.key: column for column in known}


# ---- speech language models


def model_part(content: Mapping[str, Any]) -> list[str]:
    """What a model says, and what it tells apart."""
    parts = []
    if content.get("systems"):
        sentences = _several(content["sentences"]["count"], "sentence")
        about = f"`{PurePosixPath(content['model']).name}` reading {sentences}."
        if content.get("asr"):
            about += f" Error rates by {content['asr']}."
        header = ["", "WER ↓", "CER ↓", "ended by itself", "length / reference", "× real time"]
        rows = [
            [
                name,
                _rate(entry.get("word_error_rate")),
                _rate(entry.get("character_error_rate")),
                _rate(entry.get("ended")),
                _plain(entry.get("duration_ratio"), "{:.2f}"),
                _plain(entry.get("real_time"), "{:.1f}") if "ended" in entry else NOTHING,
            ]
            for name, entry in content["systems"].items()
        ]
        parts += [about, _without_empty(header, rows)]
    if content.get("pairs"):
        header = ["likelihood test", "pairs", "accuracy, by likelihood a token ↑", "by likelihood ↑"]
        rows = [
            [name, f"{entry['pairs']:,}", _rate(entry["normalized"]), _rate(entry["total"])]
            for name, entry in content["pairs"].items()
        ]
        parts.append(markdown_table(header, rows))
    return parts


# ---- speed


def bench_part(content: Mapping[str, Any]) -> list[str]:
    """Codecs beside each other, what was measured of the budgets, and what the machine can do."""
    parts = []
    if content["codecs"]:
        parts.append(_codec_speeds(content))
    if rows := [list(_budget_cells(row)) for row in content["budgets"] if row["measured"] is not None]:
        parts.append(markdown_table(["", "measured", "budget", "", ""], rows))
    if (machine := content.get("machine")) is not None:
        peaks = ", ".join(
            f"{peak['flops'] / 1e9:,.0f} GFLOP/s in {name} ({peak['source']})"
            for name, peak in machine["peaks"].items()
        )
        line = f"The machine: {peaks}; {machine['bytes_per_second'] / 1e9:,.1f} GB/s of memory."
        parts.append(line + _reached(content))
    return parts


def _reached(content: Mapping[str, Any]) -> str:
    """What reaches how much of the machine's arithmetic, but for the codecs, whose table says it."""
    in_table = {f"{name} {step}" for name in content["codecs"] for step in ("encode", "decode")}
    reached = [
        f"{share['what']} {share['of_flops'] * 100:.0f} %"
        for share in content["shares"]
        if share["what"] not in in_table and share["of_flops"] is not None
    ]
    return f" Of its FLOP/s are reached: {', '.join(reached)}." if reached else ""


def _codec_speeds(content: Mapping[str, Any]) -> str:
    shares = {share["what"]: share["of_flops"] for share in content["shares"]}
    header = ["", "", "encode, × real time", "beside Mimi", "of the machine's FLOP/s"]
    header += ["decode, × real time", "beside Mimi", "of the machine's FLOP/s"]
    rows = []
    for name, timing in content["codecs"].items():
        cells = [name, timing["about"]]
        for step in ("encode", "decode"):
            share = shares.get(f"{name} {step}")
            cells += [
                f"{timing[step]['median_real_time']:.1f}",
                _plain(timing["ratios"].get(step), "{:.2f} ×"),
                NOTHING if share is None else f"{share * 100:.0f} %",
            ]
        rows.append(cells)
    return _without_empty(header, rows, words=2)


def _budget_cells(row: Mapping[str, Any]) -> Iterator[str]:
    yield row["what"]
    yield f"{row['measured']:.2f} {row['unit']}"
    yield f"{'≤' if row['at_most'] else '≥'} {row['target']:g}"
    yield "kept" if row["passed"] else "missed"
    yield row["note"]


# ---- cells


def _several(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _rate(value: Mapping[str, float] | None) -> str:
    return NOTHING if value is None else rate_with_interval(Interval(**value))


def _plain(value: float | None, form: str) -> str:
    return NOTHING if value is None else form.format(value)


def _without_empty(header: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """A table without the columns that nobody fills."""
    kept = [
        place for place in range(len(header)) if place < words or any(row[place] != NOTHING for row in rows)
    ]
    return markdown_table([header[i] for i in kept], [[row[i] for i in kept] for row in rows], words)
