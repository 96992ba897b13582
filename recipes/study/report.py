"""A study's report: report.html, report.md and results.json; times.json has what a clock decides."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from codec.foundation import duration, write_json, write_text
from codec.metrics import Column
from recipes.evaluation.codec_report import codes_table, stability_table
from recipes.evaluation.slm_evaluation import CEILING, REFERENCE
from recipes.reporting.page import as_html, as_markdown
from recipes.reporting.pictures import Curve, bars_picture, code_histogram, curves_picture
from recipes.reporting.tables import Field, Sound, Table, rate, show, without_nan, words
from recipes.study.config import StudyConfig
from recipes.study.language_model import ALONE, READ, VALIDATION_BLOCKS
from recipes.study.material import Material
from recipes.study.results import Comparison, Result
from recipes.study.steps import Outcome

_MOST_READ = 6  # sentences to be heard in the page; the folders have them all
_Compared: TypeAlias = tuple[str, Sequence[Sound | str | None]]  # what is heard, and its versions


def write_report(output: Path, config: StudyConfig, material: Material, outcomes: Sequence[Outcome]) -> Path:
    """Write the page, its pictures, the numbers and the times; returns the HTML page.

    Nothing in the page or the numbers is a time, so what was killed and begun again reports what it would have.
    """
    results = [Result(outcome, output) for outcome in outcomes]
    comparison = Comparison(results)
    text = as_markdown(
        "study",
        corpus={"name": material.corpus.name, "hash": material.hash},
        config=config,
        results=results,
        summary=_summary(config, material, results, comparison),
        codes=_codes(output, results),
        prediction=_prediction(output, results, comparison),
        reconstruction=reconstruction(output, results),
        speech=speech(config, results),
        stability=_stability(output, results),
        listening=listening(results),
    )
    page = output / "report.html"
    write_text(output / "report.md", text)
    write_text(page, as_html(text, output))
    write_json(output / "results.json", _numbers(config, material, results, comparison))
    write_json(output / "times.json", {result.name: result.times for result in results})
    return page


def _summary(
    config: StudyConfig, material: Material, results: Sequence[Result], comparison: Comparison
) -> dict[str, Any]:
    """The one table that a paper would have."""

    def tokens(row: Result) -> str:
        return f"{row.info.frame_rate * row.info.num_quantizers:g}"

    fields = [
        words("", lambda row: row.name),
        Field("bit/s as stored", lambda row: row.codes["nominal_bitrate"]),
        Field("tokens/s", tokens),
        Field("trigram, bit/s", lambda row: comparison.of(row.name).ngrams[-1], 1, better="lower"),
        Field("language model, bit/s", lambda row: comparison.of(row.name).alone.value, 1, better="lower"),
        Field("given the text, bit/s", lambda row: comparison.of(row.name).read.value, 1, better="lower"),
        rate("WER through the codec", lambda row: row.rate("codec"), "lower"),
        rate(
            "WER read aloud", lambda row: row.spoken(row.model_system) if row.model_system else None, "lower"
        ),
    ]
    recordings = results[0].rate("recording")
    budget = (
        f"{config.steps:,} steps" if config.steps is not None else f"{config.audio_hours:g} hours of speech"
    )
    return {
        "names": [result.name for result in results],
        "table": Table.of(results, fields),
        "training": len(material.training),
        "held_out": len(material.held_out),
        "seconds": material.seconds,
        "budget": budget,
        "seen": _span([result.model["audio_hours"] for result in results]),
        "recordings": None if math.isnan(recordings.value) else recordings,
        "alone": comparison.alone,
    }


def _codes(output: Path, results: Sequence[Result]) -> Table:
    """How the codes are used."""
    codecs = {
        result.name: {
            "frame_rate": result.info.frame_rate,
            "codebooks": result.codes["codebooks"],
            "bitrate": {
                "nominal": result.codes["nominal_bitrate"],
                "entropy": result.codes["entropy_bitrate"],
            },
            "fingerprint": result.info.fingerprint,
        }
        for result in results
    }
    counts = {result.name: [np.array(book) for book in result.codes["counts"]] for result in results}
    code_histogram(output / "codes.png", counts)
    return codes_table(codecs, [Field("fingerprint", lambda row: row[1]["fingerprint"])])


def _prediction(output: Path, results: Sequence[Result], comparison: Comparison) -> dict[str, Any]:
    """What codes cost that are predicted, and how that was learnt."""

    def told(value: Callable[[Any], Any]) -> Callable[[Result], Any]:
        return lambda row: value(comparison.of(row.name))

    def ngram(title: str, place: int) -> Field:
        return Field(title, lambda row: comparison.of(row.name).ngrams[place], 1)

    bits = [
        Field("as stored", lambda row: row.codes["nominal_bitrate"], 1),
        *(ngram(title, place) for place, title in enumerate(("unigram", "bigram", "trigram"))),
        Field("language model", told(lambda found: found.alone), 1),
        Field("given the text", told(lambda found: found.read), 1),
    ]
    fields = [
        words("", lambda row: row.name),
        Field("s measured", told(lambda found: found.seconds)),
        *bits,
        Field("the text saves", told(lambda found: found.saved), 1),
        Field("bits a token", told(lambda found: found.bits_a_token), 2),
    ]
    bars, curves = {}, {}
    for result in results:
        found = comparison.of(result.name)
        values = [result.codes["nominal_bitrate"], *found.ngrams, found.alone.value, found.read.value]
        bars[result.name] = dict(zip((field.title for field in bits), values, strict=True))
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
    return {
        "table": Table.of(results, fields),
        "alone": comparison.alone,
        "read": comparison.read,
        "models": ", ".join(f"{result.name} {result.model['parameters'] / 1e6:.1f} M" for result in results),
        "notes": comparison.notes(),
        "blocks": VALIDATION_BLOCKS,
    }


def reconstruction(output: Path, results: Sequence[Result]) -> dict[str, Any]:
    """What comes back from the codecs; the recordings, which are the same for all, stand there once."""
    lines = []
    for number, result in enumerate(results):
        labels = {"recording": "recording"} if not number else {}
        labels |= {"vocoder": f"vocoder of {result.name} on true mels", "codec": result.name}
        for system, label in labels.items():
            if (entry := result.reconstruction["systems"].get(system)) is not None:
                lines.append({"label": label, **entry})

    def mean(column: Column) -> Field:
        return Field.of(column, lambda row: row.get(column.key, {}).get("mean"))

    fields = [
        words("", "label"),
        *(mean(column) for column in _columns(result.reconstruction["columns"] for result in results)),
        rate("WER", "word_error_rate", "lower"),
        rate("CER", "character_error_rate", "lower"),
    ]
    points = [result for result in results if not math.isnan(result.rate("codec").value)]
    if points:
        _rate_against_bitrate(output / "rate.png", points)
    return {
        "table": Table.of(lines, fields),
        "picture": bool(points),
        "judged": _by_result(results, lambda result: _judged(result.reconstruction)),
        "asr": next((r.reconstruction["asr"] for r in results if r.reconstruction["asr"]), None),
        "notes": _not_measured(result.reconstruction["skipped"] for result in results),
    }


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


def _stability(output: Path, results: Sequence[Result]) -> dict[str, Any]:
    """What a change of the recording does to the codes."""
    shares = {result.name: result.reconstruction["stability"]["shares"] for result in results}
    if not any(shares.values()):
        return {}
    bars: dict[str, dict[str, float]] = {}
    for codec, found in shares.items():
        for name, share in found.items():
            if share["unchanged"] is not None:
                bars.setdefault(name, {})[codec] = share["unchanged"] * 100
    bars_picture(output / "stability.png", bars, "codes that stay (%)")
    tried = _by_result(
        results, lambda result: f"{result.reconstruction['stability']['utterances']} held-out recordings"
    )
    return {"table": stability_table(shares), "tried": tried}


def speech(config: StudyConfig, results: Sequence[Result]) -> dict[str, Any]:
    """How well the language models read aloud, and how they go on."""
    lines = []
    for number, result in enumerate(results):
        for system, entry in result.speech.get("systems", {}).items():
            if system == REFERENCE and number:
                continue  # the recordings are the same for all
            label = {REFERENCE: "recordings", CEILING: f"recordings through {result.name}"}.get(
                system, f"language model on {result.name}"
            )
            lines.append({"label": label, "of model": system == result.model_system, **entry})

    def of_model(key: str) -> Callable[[Mapping[str, Any]], Any]:
        return lambda row: row[key] if row["of model"] else None

    if not any(result.speech for result in results):
        return {}
    columns = _columns(result.speech.get("columns", []) for result in results)
    reading = [
        words("", "label"),
        rate("WER", "word_error_rate", "lower"),
        rate("CER", "character_error_rate", "lower"),
        rate("ended by itself", of_model("ended"), "higher"),
        rate("… at ½ to 2 × the length", of_model("at_length"), "higher"),
        Field("length / recording", of_model("duration_ratio"), 2),
    ]
    pace = Field("characters a second", lambda row: row["speaking_rate"]["value"], 1)
    return {
        "reading": Table.of(lines, reading) if lines else None,
        "sentences": max((line["sentences"] for line in lines), default=0),
        "candidates": config.speaking.candidates,
        "sound": Table.of(lines, [words("", "label"), pace, *_sound(columns)]),
        "notes": [
            *_not_measured(result.speech.get("skipped", {}) for result in results),
            *(
                f"{result.name}: left out: {what} ({why})."
                for result in results
                for what, why in result.speech.get("failures", {}).items()
            ),
        ],
        **_continuations(results),
    }


def _continuations(results: Sequence[Result]) -> dict[str, Any]:
    """What is said after the beginnings of held-out recordings."""
    told = {result.name: result.speech["continuations"] for result in results if result.continuations}
    if not told:
        return {"continuations": None}
    fields = [
        words("", "label"),
        Field("continuations", "continuations"),
        Field("refused", lambda row: row["refused"] or None),
        Field("seconds", "seconds", 2),
        rate("ended by itself", "ended"),
        *_sound(_columns(entry["columns"] for entry in told.values())),
    ]
    lines = [{"label": f"language model on {name}", **entry["summary"]} for name, entry in told.items()]
    refused = [
        f"{name}: {row['id']} is not gone on with: {row['reason']}."
        for name, entry in told.items()
        for row in entry["rows"]
        if row["audio"] is None
    ]
    return {"continuations": Table.of(lines, fields), "refused": refused}


def _sound(columns: Sequence[Column]) -> list[Field]:
    """What is measured of the audio, and how much of the codes repeats."""

    def value(column: Column) -> Field:
        return Field.of(column, lambda row: (row["values"].get(column.key) or {}).get("value"))

    return [
        *(value(column) for column in columns),
        rate("repeated pairs of frames", "repeated"),
        Field("longest run, frames", "longest_run"),
    ]


def _columns(told: Iterable[Sequence[Mapping[str, Any]]]) -> list[Column]:
    """All columns that any of the tokenizers has, in the order of the first that has most."""
    each = sorted(([Column(**column) for column in columns] for columns in told), key=len, reverse=True)
    return list({column.key: column for columns in each for column in columns}.values())


def _not_measured(told: Iterable[Mapping[str, str]]) -> list[str]:
    """What was not measured of any tokenizer, each thing once."""
    return list(
        dict.fromkeys(f"Not measured: {name} ({why})." for skipped in told for name, why in skipped.items())
    )


def listening(results: Sequence[Result]) -> dict[str, Table | None]:
    """Recordings, what the codecs make of them, and what the language models say; empty of nothing."""
    names = [result.name for result in results]
    examples = dict.fromkeys(name for result in results for name in result.reconstruction["examples"])
    coded: list[_Compared] = []
    for example in examples:
        owner = next(r for r in results if example in r.reconstruction["examples"])
        recording = owner.file(owner.outcome.reconstruction, f"examples/{example}.recording.wav")
        coded.append((example, [Sound(recording), *(_coded(result, example) for result in results)]))
    read: list[_Compared] = []
    owners = {
        row["id"]: (result, row) for result in reversed(results) for row in result.speech.get("rows", [])
    }
    for key in list(dict.fromkeys(row["id"] for r in results for row in r.speech.get("rows", [])))[
        :_MOST_READ
    ]:
        owner, row = owners[key]
        recording = owner.file(owner.outcome.speech, row["recording"])
        read.append((row["text"], [Sound(recording), *(_spoken(result, key) for result in results)]))
    continued = dict.fromkeys(row["id"] for result in results for row in result.continuations)
    after: list[_Compared] = [(key, [_continued(result, key) for result in results]) for key in continued]
    found = {
        "examples": _heard(["recording", *names], coded),
        "read": _heard(["recording", *names], read),
        "continued": _heard(names, after),
    }
    return found if any(found.values()) else {}


def _heard(header: Sequence[str], rows: Sequence[_Compared]) -> Table | None:
    """Sounds to be compared, a column each version; words where there is none and why."""
    cells = [
        [label, *(sound if isinstance(sound, Sound) else show(sound) for sound in sounds)]
        for label, sounds in rows
    ]
    return Table(["", *header], cells, words=len(header) + 1) if cells else None


def _spoken(result: Result, key: str) -> Sound | None:
    row = next((row for row in result.speech.get("rows", []) if row["id"] == key), None)
    if row is None:
        return None
    return Sound(
        result.file(result.outcome.speech, row["audio"]), f"“{row['heard']}”" if row["heard"] else ""
    )


def _continued(result: Result, key: str) -> Sound | str | None:
    row = next((row for row in result.continuations if row["id"] == key), None)
    if row is None:
        return None
    if row["audio"] is None:
        return f"refused: {row['reason']}"
    how = "; ".join([f"{row['prompt_seconds']:.1f} s given", *row["cuts"]])
    return Sound(result.file(result.outcome.speech, row["audio"]), how)


def _coded(result: Result, example: str) -> Sound | None:
    if example not in result.reconstruction["examples"]:
        return None
    return Sound(result.file(result.outcome.reconstruction, f"examples/{example}.codec.wav"))


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
