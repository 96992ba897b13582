"""Tables of results from result files: codecs, language models, speed."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from codec.metrics import UTMOS, WAVEFORM_METRICS, Column, Interval, SpeakerSimilarity
from recipes.benchmark.report import HOW_RATIOS
from recipes.evaluation.codec_evaluation import BEFORE_VOCODER
from recipes.evaluation.slm_continuations import PROMPT_SIMILARITY
from recipes.evaluation.slm_tables import COMPARED, with_interval
from recipes.reporting.pictures import markdown_table, number, rate_with_interval
from recipes.reporting.results_files import ResultFile
from slm.evaluation.cross_modal import VIEWS

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
    known = [BEFORE_VOCODER, UTMOS.column, SpeakerSimilarity.column, PROMPT_SIMILARITY]
    known += [column for metric in WAVEFORM_METRICS for column in metric.columns]
    return {column.key: column for column in known}


# ---- speech language models


def model_part(content: Mapping[str, Any]) -> list[str]:
    """What a model says, how it goes on, what it tells apart, and what text and speech tell it of each other."""
    parts = []
    name = f"`{PurePosixPath(content['model']).name}`"
    heard_by = f" Error rates by {content['asr']}." if content.get("asr") else ""
    if content.get("systems"):
        sentences = _several(content["sentences"]["count"], "sentence")
        parts += [f"{name} reading {sentences}.{heard_by}", *_reading_tables(content)]
    if content.get("continuations"):
        config = content["continuation"]
        heard_by = f" Words as {content['asr']} hears them." if content.get("asr") else ""
        parts.append(
            f"{name} going on from the first {config['prompt_seconds']:g} s of recordings ({config['split']} split of "
            f"{PurePosixPath(config['corpus']).name}), {config['samples']} samples each.{heard_by}"
        )
        parts += _continuation_tables(content["continuations"]["systems"])
    if content.get("pairs"):
        parts.append(_pairs_table(content["pairs"]))
    if content.get("cross_modal"):
        parts += _cross_modal_tables(content["cross_modal"])
    return parts


def _reading_tables(content: Mapping[str, Any]) -> Iterator[str]:
    compared = content.get("with_reference", {})
    lines = {**content["systems"], **{f"{name}, {COMPARED}": entry for name, entry in compared.items()}}
    header = ["", "WER ↓", "CER ↓", "ended by itself", "… at ½ to 2 × the length", "length / reference"]
    header.append("× real time")
    rows = [
        [
            name,
            _rate(entry.get("word_error_rate")),
            _rate(entry.get("character_error_rate")),
            _rate(entry.get("ended")),
            _rate(entry.get("at_length")),
            _plain(entry.get("duration_ratio"), "{:.2f}"),
            _plain(entry.get("real_time"), "{:.1f}") if "ended" in entry else NOTHING,
        ]
        for name, entry in lines.items()
    ]
    yield _without_empty(header, rows)
    yield from _sound_table(content["systems"], ("speaking_rate", "characters a second", 1))


def _continuation_tables(systems: Mapping[str, Any]) -> Iterator[str]:
    header = [
        "",
        "prompts",
        "ended by itself",
        "with words ↑",
        "perplexity ↓",
        "auto-BLEU ↓",
        "self-BLEU ↓",
        "VERT ↓",
    ]
    rows = [
        [
            name,
            _plain(entry.get("prompts"), "{:,}"),
            _rate(entry.get("ended")),
            _rate(entry.get("heard")),
            _spanned(entry.get("perplexity"), 0),
            _rate(entry.get("auto_bleu")),
            _rate(entry.get("self_bleu")),
            _percent(entry.get("vert")),
        ]
        for name, entry in systems.items()
    ]
    yield _without_empty(header, rows)
    yield from _sound_table(systems)


def _sound_table(systems: Mapping[str, Any], *first: tuple[str, str, int]) -> Iterator[str]:
    """How systems sound: what comes `first` (key, heading, digits), metrics of audio, self-repetition."""
    columns = _columns()
    keys = dict.fromkeys(key for entry in systems.values() for key in entry.get("values", {}))
    known = [columns[key] for key in keys if key in columns]
    header = ["", *(heading for _, heading, _ in first), *(column.heading for column in known)]
    rows = [
        [
            name,
            *(_spanned(entry.get(key), digits) for key, _, digits in first),
            *(_spanned(entry.get("values", {}).get(column.key), column.digits) for column in known),
            _rate(entry.get("repeated")),
        ]
        for name, entry in systems.items()
    ]
    if any(cell != NOTHING for row in rows for cell in row[1:]):
        yield _without_empty([*header, "repeated pairs of frames"], rows)


def _pairs_table(tests: Mapping[str, Any]) -> str:
    header = ["likelihood test", "pairs", "accuracy, by likelihood a token ↑", "by likelihood ↑", "ceiling"]
    rows = []
    for name, test in tests.items():
        for line, entry in {
            name: test,
            **{f"… {c}": e for c, e in test.get("categories", {}).items()},
        }.items():
            rates = [_rate(entry["normalized"]), _rate(entry["total"]), _percent(entry.get("ceiling"))]
            rows.append([line, f"{entry['pairs']:,}", *rates])
    return _without_empty(header, rows)


def _cross_modal_tables(datasets: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for name, entry in datasets.items():
        for unit, what, saved in (
            ("speech", "speech, bits a token", "speech_saved"),
            ("text", "text, bits a character", "text_saved"),
        ):
            strange = entry.get("not_trained_on", [])
            views = [view for view in VIEWS if view.startswith(unit)]
            cells = [_spanned(entry["bits"].get(v), 3) + ("*" if v in strange else "") for v in views]
            rows.append([name, what, f"{entry['rows']:,}", *cells, _spanned(entry.get(saved), 3)])
    header = ["", "", "rows", "alone ↓", "the other in view ↓", "saved ↑"]
    yield markdown_table(header, rows, words=2)
    if any(entry.get("not_trained_on") for entry in datasets.values()):
        yield "*: the model has seen no such documents in training."
    found = [
        [
            name,
            trial["find"],
            trial["reading"],
            f"{trial['trials']:,}",
            _rate(trial.get("accuracy")),
            _percent(trial["chance"]),
        ]
        for name, entry in datasets.items()
        for trial in entry["retrieval"]
    ]
    if found:
        yield markdown_table(["", "find the", "reading", "trials", "found ↑", "chance"], found, words=3)


# ---- speed


def bench_part(content: Mapping[str, Any]) -> list[str]:
    """Codecs beside each other, what was measured of the budgets, and what the machine can do."""
    parts = []
    if content["codecs"]:
        parts.append(_codec_speeds(content))
        if any(timing["ratios"] for timing in content["codecs"].values()):
            parts.append(HOW_RATIOS)
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
                _plain(_ratio(timing["ratios"], step), "{:.2f} ×"),
                NOTHING if share is None else f"{share * 100:.0f} %",
            ]
        rows.append(cells)
    return _without_empty(header, rows, words=2)


def _ratio(ratios: Mapping[str, float], step: str) -> float | None:
    """The median of the rounds' own; files of before had it beside the ratio of the fastest rounds."""
    return ratios.get(f"{step}_round_by_round", ratios.get(step))


def _budget_cells(row: Mapping[str, Any]) -> Iterator[str]:
    yield row["what"]
    yield f"{row['measured']:.2f} {row['unit']}"
    yield f"{'≤' if row['at_most'] else '≥'} {row['target']:g}"
    yield "kept" if row["passed"] else row.get("instead", "") if row["passed"] is None else "missed"
    yield row["note"]


# ---- cells


def _several(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _rate(value: Mapping[str, float | None] | None) -> str:
    return NOTHING if value is None else rate_with_interval(Interval.from_dict(value))


def _spanned(value: Mapping[str, float | None] | None, digits: int) -> str:
    return NOTHING if value is None else with_interval(Interval.from_dict(value), digits)


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{value * 100:.1f} %"


def _plain(value: float | None, form: str) -> str:
    return NOTHING if value is None else form.format(value)


def _without_empty(header: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """A table without the columns that nobody fills."""
    kept = [
        place for place in range(len(header)) if place < words or any(row[place] != NOTHING for row in rows)
    ]
    return markdown_table([header[i] for i in kept], [[row[i] for i in kept] for row in rows], words)
