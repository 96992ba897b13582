"""The tables of docs/results.md and docs/benchmarks.md, from what evaluate-codec, evaluate-slm and bench leave."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from codec.foundation import UserError, write_text
from codec.metrics import UTMOS, WAVEFORM_METRICS, Column, SpeakerSimilarity
from recipes.benchmark.report import HOW_RATIOS, codec_table
from recipes.evaluation.codec_evaluation import BEFORE_VOCODER
from recipes.evaluation.codec_report import systems_table
from recipes.evaluation.continuations import PROMPT_SIMILARITY
from recipes.evaluation.slm_report import (
    bits_table,
    continuations_table,
    pairs_table,
    reading_table,
    retrieval_table,
    sound_table,
)
from recipes.reporting.tables import Field, Table, words

_COLUMNS = {
    column.key: column
    for column in (
        BEFORE_VOCODER,
        UTMOS.column,
        SpeakerSimilarity.column,
        PROMPT_SIMILARITY,
        *(column for metric in WAVEFORM_METRICS for column in metric.columns),
    )
}
# Of a codec's metrics those that tell most; each report has them all.
_SHOWN = (
    "log_mel_l1_before_vocoder", "log_mel_l1", "stoi", "pesq", "voicing_f1", "dnsmos_overall", "utmos",
    "speaker_similarity",
)  # fmt: skip
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


# ---- the files


Kind = Literal["evaluate-codec", "evaluate-slm", "bench"]
# what only the files of this command have at their top
_MARKS: dict[Kind, tuple[str, ...]] = {
    "evaluate-codec": ("systems", "corpus"),
    "evaluate-slm": ("model", "codec"),
    "bench": ("budgets", "codecs"),
}
_SAID = ("command", "date", "device", "threads")


@dataclass(frozen=True)
class ResultFile:
    """One file of results."""

    path: Path
    content: Mapping[str, Any]

    @property
    def origin(self) -> str:
        """A line of Markdown: command, date, device."""
        said = self.content
        command = plain_command(said["command"])
        return f"`{command}`, {said['date']}, {said['device']}, {said['threads']} threads"


def open_results(path: Path, kind: Kind) -> ResultFile:
    """Read what the command `kind` left at a path, its directory or its file.

    Raises UserError for what is not there, not JSON, another command's, or does not say where it comes from.
    """
    if path.is_dir():
        path = path / ("bench.json" if kind == "bench" else "results.json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a file that codec-slm {kind} left") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); give a file that codec-slm {kind} left") from error
    if not isinstance(content, dict) or any(mark not in content for mark in _MARKS[kind]):
        raise UserError(f"{path}: not a file that codec-slm {kind} left")
    if missing := [name for name in _SAID if name not in content]:
        raise UserError(
            f"{path}: does not say its {missing[0]}; run codec-slm {kind} again, which writes it down"
        )
    return ResultFile(path, content)


def plain_command(command: str) -> str:
    """A command line without the folders of one machine: of an absolute path the last part is left."""
    words = shlex.split(command)
    return " ".join(shlex.quote(_plain(word)) for word in words)


def _plain(word: str) -> str:
    flag, equals, value = word.partition("=")
    if flag.startswith("-") and equals:
        return f"{flag}={_plain(value)}"
    path = PurePosixPath(word)
    is_elsewhere = path.is_absolute() or word.startswith(("~", "../"))
    return path.name or word if is_elsewhere else word


# ---- the section


def results_section(
    codecs: Sequence[ResultFile], models: Sequence[ResultFile], benches: Sequence[ResultFile]
) -> str:
    """All tables, each under what it was measured with."""
    parts: list[str | Table] = []
    for title, files, write in (
        ("### Codecs", codecs, codec_part),
        ("### Speech language models", models, model_part),
        ("### Speed", benches, bench_part),
    ):
        if files:
            parts.append(title)
        for file in files:
            parts += [file.origin, *write(file.content)]
    return "\n\n".join(map(str, parts))


def codec_part(content: Mapping[str, Any]) -> list[str | Table]:
    """What was evaluated on what, and the table of systems."""
    corpus = content["corpus"]
    about = (
        f"{_several(content['utterances'], 'recording')} ({content['seconds'] / 60:.1f} minutes) of the "
        f"{corpus['split']} split of {PurePosixPath(corpus['name']).name}."
    )
    if content.get("asr"):
        about += f" Error rates by {content['asr']}."
    codecs = content["codecs"]  # recordings, and vocoders on true mels, are none

    def of_codec(*keys: str) -> Any:
        def value(row: Any) -> Any:
            found = codecs.get(row[0])
            for key in keys:
                found = None if found is None else found[key]
            return found

        return value

    more = [
        Field("bit/s", of_codec("bitrate", "nominal")),
        Field("encode, × real time", of_codec("speed", "encode")),
        Field("decode", of_codec("speed", "decode")),
    ]
    return [about, systems_table(content, [_COLUMNS[key] for key in _SHOWN], more)]


def model_part(content: Mapping[str, Any]) -> list[str | Table]:
    """What a model says, how it goes on, what it tells apart, and what text and speech tell it of each other."""
    parts: list[str | Table] = []
    name = f"`{PurePosixPath(content['model']).name}`"
    heard_by = f" Error rates by {content['asr']}." if content.get("asr") else ""
    if systems := content.get("systems"):
        sentences = _several(content["sentences"]["count"], "sentence")
        parts += [f"{name} reading {sentences}.{heard_by}", reading_table(content, whole=False)]
        parts += _sound(systems)
    if content.get("continuations"):
        config, systems = content["continuation"], content["continuations"]["systems"]
        heard_by = f" Words as {content['asr']} hears them." if content.get("asr") else ""
        parts.append(
            f"{name} going on from the first {config['prompt_seconds']:g} s of recordings ({config['split']} split of "
            f"{PurePosixPath(config['corpus']).name}), {config['samples']} samples each.{heard_by}"
        )
        parts += [continuations_table(systems, whole=False), *_sound(systems)]
    if content.get("pairs"):
        parts.append(pairs_table(content["pairs"]))
    if datasets := content.get("cross_modal"):
        parts.append(bits_table(datasets))
        if any(entry.get("not_trained_on") for entry in datasets.values()):
            parts.append("*: the model has seen no such documents in training.")
        if any(entry["retrieval"] for entry in datasets.values()):
            parts.append(retrieval_table(datasets))
    return parts


def _sound(systems: Mapping[str, Any]) -> list[str | Table]:
    """How systems sound, where anything was measured of that."""
    keys = dict.fromkeys(key for entry in systems.values() for key in entry.get("values", {}))
    columns: list[Column] = [_COLUMNS[key] for key in keys if key in _COLUMNS]
    table = sound_table(systems, columns, longest_run=False)
    return [table] if len(table.header) > 1 else []


def bench_part(content: Mapping[str, Any]) -> list[str | Table]:
    """Codecs beside each other, and what was measured of the budgets."""
    parts: list[str | Table] = []
    if codecs := content["codecs"]:
        parts.append(codec_table(codecs))
        if any(timing["ratios"] for timing in codecs.values()):
            parts.append(HOW_RATIOS)
    fields = [
        words("", "what"),
        Field("measured", lambda row: f"{row['measured']:.2f} {row['unit']}"),
        Field("budget", lambda row: f"{'≤' if row['at_most'] else '≥'} {row['target']:g}"),
        Field("", _verdict),
        Field("", "note"),
    ]
    if rows := [row for row in content["budgets"] if row["measured"] is not None]:
        parts.append(Table.of(rows, fields))
    return parts


def _verdict(row: Mapping[str, Any]) -> str:
    if row["passed"] is None:
        return row.get("instead", "")
    return "kept" if row["passed"] else "missed"


def _several(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


# ---- the page


def replace_results(text: str, section: str, name: str = "the page") -> str:
    """`text` with `section` between the two markers, whatever stood there.

    Raises UserError unless each marker stands there once, in their order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UserError(
            f'{name}: put the line "{BEGIN}" and below it the line "{END}" where the results shall stand, each once'
        )
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{section.strip()}\n\n{END}{after}"


def update_readme(path: Path, section: str) -> bool:
    """Write the section into a page; whether that changed it.

    Raises UserError for a page that is not there or has no markers.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name the page with --readme") from error
    updated = replace_results(text, section, str(path))
    if updated == text:
        return False
    write_text(path, updated)
    return True
