"""A study's report: report.html, report.md and results.json; times.json has what a clock decides."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from codec.foundation import duration, write_json, write_text
from codec.metrics import Column
from recipes.evaluation.codec_report import codes_table, stability_table
from recipes.evaluation.slm_evaluation import CEILING, REFERENCE
from recipes.reporting.page import Block, Picture, Points, Section, as_html, as_markdown
from recipes.reporting.pictures import Curve, bars_picture, code_histogram, curves_picture
from recipes.reporting.tables import Field, Sound, Table, rate, show, without_nan, words
from recipes.study.config import StudyConfig
from recipes.study.language_model import ALONE, READ, VALIDATION_BLOCKS
from recipes.study.material import Material
from recipes.study.results import CommonRows, Comparison, Result
from recipes.study.steps import Outcome

_MOST_READ = 6  # sentences to be heard in the page; the folders have them all


def write_report(output: Path, config: StudyConfig, material: Material, outcomes: Sequence[Outcome]) -> Path:
    """Write the page, its pictures, the numbers and the times; returns the HTML page.

    Nothing in the page or the numbers is a time, so what was killed and begun again reports what it would have.
    """
    results = [Result(outcome, output) for outcome in outcomes]
    comparison = Comparison(results)
    sections = [
        _summary(config, material, results, comparison),
        _tokens_section(output, results),
        _prediction_section(output, results, comparison),
        reconstruction_section(output, results),
        speech_section(config, results),
        _stability_section(output, results),
        listening_section(results),
        _settings(config, material, results),
    ]
    sections = [section for section in sections if section.blocks]
    title = f"{', '.join(result.name for result in results)} on {material.corpus.name}"
    page = output / "report.html"
    write_text(output / "report.md", as_markdown(title, sections))
    write_text(page, as_html(title, sections, output))
    write_json(output / "results.json", _numbers(config, material, results, comparison))
    write_json(output / "times.json", {result.name: result.times for result in results})
    return page


def _summary(
    config: StudyConfig, material: Material, results: Sequence[Result], comparison: Comparison
) -> Section:
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
    table = Table.of(results, fields)
    seen = _span([result.model["audio_hours"] for result in results])
    budget = (
        f"{config.steps:,} steps" if config.steps is not None else f"{config.audio_hours:g} hours of speech"
    )
    about = (
        f"{material.corpus.name}: {len(material.training):,} recordings ({duration(material.seconds['train'])}) to "
        f"train on, {len(material.held_out):,} ({duration(material.seconds['validation'])}) held out. One language "
        f"model each, of the same shape, for {budget} ({seen} hours of speech seen)."
    )
    blocks: list[Block] = [about, table]
    recordings = results[0].rate("recording")
    if not math.isnan(recordings.value):
        blocks.append(f"The recordings themselves: WER {show(recordings, 1, percent=True)}.")
    blocks.append(
        Points(
            [
                "Bits a second compare across frame rates and codebooks: what the same "
                f"{len(comparison.alone.ids):,} of {len(material.held_out):,} held-out recordings "
                f"({duration(comparison.alone.seconds)}), each whole, cost as these codes. A tokenizer that keeps less "
                "also costs less, so read them beside the error rates.",
                "WER: word error rate by a recogniser, with 95 % bootstrap intervals over recordings or sentences. "
                "Through the codec bounds what a language model over these codes can say.",
            ]
        )
    )
    return Section("In short", blocks)


def _tokens_section(output: Path, results: Sequence[Result]) -> Section:
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
    return Section(
        "Codes",
        [
            codes_table(codecs, [Field("fingerprint", lambda row: row[1]["fingerprint"])]),
            "Over the training recordings. Perplexity: as many equally frequent codes would carry as much; with "
            "several quantizers the mean of theirs. Bit/s by entropy: of an ideal coder that knows the frequencies "
            "and no context.",
            Picture("codes.png", "codes by frequency"),
        ],
    )


def _prediction_section(output: Path, results: Sequence[Result], comparison: Comparison) -> Section:
    """What codes cost that are predicted, and how that was learnt."""

    def told(value: Callable[[Any], Any]) -> Callable[[Result], Any]:
        return lambda row: value(comparison.of(row.name))

    bits = [
        Field("as stored", lambda row: row.codes["nominal_bitrate"], 1),
        *(
            Field(title, told(lambda found, place=place: found.ngrams[place]), 1)
            for place, title in enumerate(("unigram", "bigram", "trigram"))
        ),
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
    models = ", ".join(f"{result.name} {result.model['parameters'] / 1e6:.1f} M" for result in results)
    return Section(
        "Prediction",
        [
            Table.of(results, fields),
            (
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
            (
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
    blocks: list[Block] = [Table.of(lines, fields)]
    points = [result for result in results if not math.isnan(result.rate("codec").value)]
    if points:
        _rate_against_bitrate(output / "rate.png", points)
        blocks.append(Picture("rate.png", "word error rate against bitrate"))
    judged = _by_result(results, lambda result: _judged(result.reconstruction))
    recogniser = next((r.reconstruction["asr"] for r in results if r.reconstruction["asr"]), None)
    by = f", error rates by {recogniser}" if recogniser else ""
    blocks.append(f"{judged}, scored at 24 kHz{by}.")
    if notes := _not_measured(result.reconstruction["skipped"] for result in results):
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


def _stability_section(output: Path, results: Sequence[Result]) -> Section:
    """What a change of the recording does to the codes."""
    shares = {result.name: result.reconstruction["stability"]["shares"] for result in results}
    if not any(shares.values()):
        return Section("Stability of the codes", [])
    bars: dict[str, dict[str, float]] = {}
    for codec, found in shares.items():
        for name, share in found.items():
            if share["unchanged"] is not None:
                bars.setdefault(name, {})[codec] = share["unchanged"] * 100
    bars_picture(output / "stability.png", bars, "codes that stay (%)")
    tried = _by_result(
        results, lambda result: f"{result.reconstruction['stability']['utterances']} held-out recordings"
    )
    return Section(
        "Stability of the codes",
        [
            stability_table(shares),
            "Share of codes that stay the same, place by place, when the recording is changed; behind it for "
            f"shifts, what stays under the best alignment (1 − edits / frames). Over {tried}.",
            Picture("stability.png", "codes that stay"),
        ],
    )


def speech_section(config: StudyConfig, results: Sequence[Result]) -> Section:
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

    remarks = [
        *_not_measured(result.speech.get("skipped", {}) for result in results),
        *(
            f"{result.name}: left out: {what} ({why})."
            for result in results
            for what, why in result.speech.get("failures", {}).items()
        ),
    ]
    remaining: list[Block] = [*([Points(remarks)] if remarks else []), *_continuations(results)]
    if not lines:
        return Section("Speaking", remaining if any(result.speech for result in results) else [])
    reading = [
        words("", "label"),
        rate("WER", "word_error_rate", "lower"),
        rate("CER", "character_error_rate", "lower"),
        rate("ended by itself", of_model("ended"), "higher"),
        rate("… at ½ to 2 × the length", of_model("at_length"), "higher"),
        Field("length / recording", of_model("duration_ratio"), 2),
    ]
    columns = _columns(result.speech.get("columns", []) for result in results)
    pace = Field("characters a second", lambda row: row["speaking_rate"]["value"], 1)
    sentences = max(line["sentences"] for line in lines)
    candidates = config.speaking.candidates
    blocks: list[Block] = [
        Table.of(lines, reading),
        f"{sentences} held-out sentences, the best of {candidates} by the model's own hearing."
        if candidates > 1
        else f"{sentences} held-out sentences, each spoken once.",
        Table.of(lines, [words("", "label"), pace, *_sound(columns)]),
        "Means over sentences. Characters a second: without the silence around the sentence. Repeated: pairs of "
        "frames that were there before in the same utterance; the longest run is the worst sentence's.",
    ]
    return Section("Speaking", [*blocks, *remaining])


def _continuations(results: Sequence[Result]) -> list[Block]:
    """What is said after the beginnings of held-out recordings."""
    told = {result.name: result.speech["continuations"] for result in results if result.continuations}
    if not told:
        return []
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
    return [
        "Beginnings of held-out recordings, gone on with; only what follows them is measured.",
        Table.of(lines, fields),
        *([Points(refused)] if refused else []),
    ]


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


def listening_section(results: Sequence[Result]) -> Section:
    """Recordings, what the codecs make of them, and what the language models say."""
    names = [result.name for result in results]
    blocks: list[Block] = []
    examples = list(dict.fromkeys(name for r in results for name in r.reconstruction["examples"]))
    if examples:
        rows: list[tuple[str, list[Sound | str | None]]] = []
        for example in examples:
            owner = next(r for r in results if example in r.reconstruction["examples"])
            recording = owner.file(owner.outcome.reconstruction, f"examples/{example}.recording.wav")
            rows.append((example, [Sound(recording), *(_coded(result, example) for result in results)]))
        blocks += ["Held-out recordings through the codecs.", _heard(["recording", *names], rows)]
    read = {row["id"]: row for result in results for row in result.speech.get("rows", [])}
    if read:
        rows = []
        for key, row in list(read.items())[:_MOST_READ]:
            owner = next(r for r in results if any(other["id"] == key for other in r.speech.get("rows", [])))
            recording = owner.file(owner.outcome.speech, row["recording"])
            rows.append((row["text"], [Sound(recording), *(_spoken(result, key) for result in results)]))
        blocks += [
            "Held-out sentences read by the language models, with what the recogniser heard.",
            _heard(["recording", *names], rows),
        ]
    continued = list(dict.fromkeys(row["id"] for result in results for row in result.continuations))
    if continued:
        rows = [(key, [_continued(result, key) for result in results]) for key in continued]
        blocks += ["Beginnings of held-out recordings, gone on with.", _heard(names, rows)]
    return Section("To listen to", blocks)


def _heard(header: Sequence[str], rows: Sequence[tuple[str, Sequence[Sound | str | None]]]) -> Table:
    """Sounds to be compared, a column each version; words where there is none and why."""
    cells = [
        [label, *(sound if isinstance(sound, Sound) else show(sound) for sound in sounds)]
        for label, sounds in rows
    ]
    return Table(["", *header], cells, words=len(header) + 1)


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
