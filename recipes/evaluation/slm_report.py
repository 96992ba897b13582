"""What `evaluate-slm` leaves: results.json, report.md, tables of what was measured, a spectrogram, and the audio."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codec.foundation import write_json, write_text
from codec.metrics import FEW, Column, Interval
from data import read_audio
from recipes.evaluation.slm_continuations import Continuation, ContinuationResult
from recipes.evaluation.slm_evaluation import CEILING, REFERENCE, SLMEvaluation, SpokenRow
from recipes.reporting.page import Block, Picture, Points, Section, as_markdown, blocks_as_markdown
from recipes.reporting.pictures import spectrogram_picture, waveform_row
from recipes.reporting.tables import Field, Table, rate, show, words, write_parquet
from slm.evaluation.cross_modal import VIEWS, CrossModalResult, cross_modal_table_rows
from slm.evaluation.pairs import PairAccuracy, PairResult, pair_rows

COMPARED = "sentences with a reference"
_MOST_ROWS = 200  # of a table in the page; the Parquet files have them all
_BIT_NAMES = {
    "text/bits_per_byte": "text, bits a byte",
    "speech/bits_per_token": "speech, bits a token",
    "speech/bits_per_second": "speech, bits a second",
    "control/bits_per_token": "where words and speech change, bits a token",
}


def write_slm_report(output: Path, evaluation: SLMEvaluation, facts: dict[str, Any]) -> str:
    """Write everything but the audio into `output` and return the Markdown tables of results.

    `facts`: the `model` (location), the `codec` (fields of CodecInfo), the `sentences`, `references`, `asr`, `device`,
    `threads` and `command`; where recordings were gone on with, the settings of `continuation`, and the `text_lm`.
    """
    output.mkdir(parents=True, exist_ok=True)
    content = summary(evaluation, facts)
    write_json(output / "results.json", content)
    rows: dict[str, list[dict[str, Any]]] = {
        "sentences": [_spoken(row, evaluation) for row in evaluation.rows],
        "pairs": pair_rows(evaluation.pairs),
        "continuations": _continued(evaluation.continuations),
        "cross_modal": cross_modal_table_rows(evaluation.cross_modal),
    }
    for name, found in rows.items():
        if found:
            write_parquet(output / f"{name}.parquet", found)
    example = next((row for row in evaluation.rows if row.audio and row.spoken.seconds), None)
    if example is not None:
        rate_of = facts["codec"]["sampling_rate"]
        audio = read_audio(output / str(example.audio), rate_of)
        title = f"“{example.sentence.text}” ({example.system})"
        spectrogram_picture(output / "spectrogram.png", [waveform_row(title, audio, rate_of)])
    tables = _tables(evaluation, content)
    sections = _sections(evaluation, content, tables, with_picture=example is not None)
    reading = f" reading {facts['sentences']['count']} sentences" if evaluation.rows else ""
    write_text(output / "report.md", as_markdown(f"{facts['model']}{reading}", sections))
    return blocks_as_markdown(list(tables.values()))


def _tables(evaluation: SLMEvaluation, content: Mapping[str, Any]) -> dict[str, Table]:
    """Those of what was measured, by name, in their order."""
    found = {}
    if evaluation.rows:
        found["reading"] = reading_table(content)
        found["sound"] = sound_table(content["systems"], evaluation.columns)
    if evaluation.continuations is not None:
        systems = content["continuations"]["systems"]
        found["continuations"] = continuations_table(systems)
        found["their sound"] = sound_table(systems, evaluation.continuations.columns)
    if evaluation.pairs:
        found["pairs"] = pairs_table(content["pairs"])
    if evaluation.cross_modal:
        found["bits"] = bits_table(content["cross_modal"])
    if any(result.trials for result in evaluation.cross_modal):
        found["retrieval"] = retrieval_table(content["cross_modal"])
    return found


def summary(evaluation: SLMEvaluation, facts: dict[str, Any]) -> dict[str, Any]:
    """The numbers as JSON: what was not measured is left out."""
    systems = {}
    for system in evaluation.systems:
        fields = asdict(evaluation.summary(system))
        if system in (REFERENCE, CEILING):  # what only a model does
            del fields["ended"], fields["plausible"], fields["at_length"]
        systems[system] = _measured(fields)
    continuations = None
    if evaluation.continuations is not None:
        result = evaluation.continuations
        continuations = {
            "systems": {system: _measured(asdict(result.summary(system))) for system in result.systems},
            "failures": result.failures,
        }
    return {
        **facts,
        "systems": systems,
        "with_reference": {s: _measured(asdict(lines)) for s, lines in evaluation.compared.items()},
        "pairs": {result.name: _accuracies(result) for result in evaluation.pairs},
        "bits": evaluation.bits,
        "bits_of": evaluation.bits_of,
        "continuations": continuations,
        "cross_modal": {result.name: _cross_modal(result) for result in evaluation.cross_modal},
        "skipped": evaluation.skipped,
        "without_reference": evaluation.unreferenced,
        "failures": evaluation.failures,
        "not_trained_on": evaluation.not_trained_on,
        "unfinished": evaluation.unfinished,
    }


def _measured(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is NaN, and intervals around NaN; null for bounds that there are none of."""
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict) and "level" not in value:
            kept[name] = _measured(value)
        elif isinstance(value, dict):
            if not math.isnan(value["value"]):
                kept[name] = Interval(**value).to_dict()
        elif not math.isnan(value):
            kept[name] = value
    return kept


def _accuracies(result: PairResult) -> dict[str, Any]:
    """JSON of a likelihood test."""
    return {
        **_accuracy(result.accuracy),
        "categories": {name: _accuracy(accuracy) for name, accuracy in result.by_category().items()},
        "failures": result.failures,
    }


def _accuracy(accuracy: PairAccuracy) -> dict[str, Any]:
    return {**_measured(asdict(accuracy)), "ceiling": accuracy.ceiling}


def _cross_modal(result: CrossModalResult) -> dict[str, Any]:
    """JSON of a token dataset."""
    return {
        "rows": len(result.rows),
        "left_out": result.left_out,
        "documents": result.formats,
        "not_trained_on": result.unfamiliar,
        **_measured(asdict(result.bits)),
        "retrieval": [
            {"reading": reader, "find": direction, "chance": accuracy.chance, **_measured(asdict(accuracy))}
            for (reader, direction), accuracy in result.retrieval.items()
        ],
    }


def _spoken(row: SpokenRow, evaluation: SLMEvaluation) -> dict[str, str | float | int | bool | None]:
    spoken = row.spoken
    of_model = row.audio is not None
    pace = (
        spoken.text_characters / spoken.sounding_seconds
        if spoken.text_characters and spoken.sounding_seconds
        else None
    )
    return {
        "id": row.sentence.id,
        "text": row.sentence.text,
        "system": row.system,
        "voice": row.voice,
        "seconds": spoken.seconds,
        "sounding_seconds": spoken.sounding_seconds,
        "characters_a_second": pace,
        "reference_seconds": spoken.reference_seconds,
        "ended": spoken.ended if of_model else None,
        "cuts": "; ".join(row.cuts) or None,
        "computing_seconds": spoken.computing_seconds if of_model else None,
        **{column.key: _defined(spoken.values.get(column.key)) for column in evaluation.columns},
        "repeated": _defined(spoken.repetition.repeated) if spoken.repetition else None,
        "longest_run": spoken.repetition.longest_run if spoken.repetition else None,
        "transcript": row.transcript,
        "word_errors": spoken.words.errors if spoken.words else None,
        "words": spoken.words.length if spoken.words else None,
        "character_errors": spoken.characters.errors if spoken.characters else None,
        "characters": spoken.characters.length if spoken.characters else None,
        "audio": row.audio,
    }


def _continued(result: ContinuationResult | None) -> list[dict[str, Any]]:
    if result is None:
        return []

    def flat(row: Continuation) -> dict[str, Any]:
        return {
            "id": row.id,
            "system": row.system,
            "sample": row.sample,
            "seconds": row.seconds,
            "ended": row.ended,
            "cut": row.cut,
            **{column.key: _defined(row.values.get(column.key)) for column in result.columns},
            "repeated": _defined(row.repetition.repeated) if row.repetition else None,
            "longest_run": row.repetition.longest_run if row.repetition else None,
            "transcript": row.transcript,
            "nats": row.likelihood.nats if row.likelihood else None,
            "text_tokens": row.likelihood.tokens if row.likelihood else None,
            "auto_bleu": _defined(row.auto_bleu),
            "self_bleu": _defined(row.self_bleu),
            "samples_self_bleu": _defined(row.samples_self_bleu),
            "audio": row.audio,
        }

    return [flat(row) for row in result.rows]


def _defined(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


# ---- tables, of results.json


def reading_table(content: Mapping[str, Any], whole: bool = True) -> Table:
    """How well sentences are understood, ended and timed; systems below each other. `whole`: all that is known."""
    lines = {
        **content["systems"],
        **{f"{name}, {COMPARED}": entry for name, entry in content.get("with_reference", {}).items()},
    }

    def of_model(key: str) -> Callable[[Any], Any]:
        return lambda row: row[1].get(key) if "ended" in row[1] else None

    def length(row: Any) -> str | None:
        ratios = [row[1].get(f"{which}_ratio") for which in ("duration", "shortest", "longest")]
        if ratios[0] is None or "ended" not in row[1]:
            return None
        spread = f" ({ratios[1]:.2f}–{ratios[2]:.2f})" if whole and ratios[1] is not None else ""
        return f"{ratios[0]:.2f}{spread}"

    fields = [
        words("", lambda row: row[0]),
        *([Field("utterances", lambda row: row[1].get("sentences"))] if whole else []),
        rate("WER", lambda row: row[1].get("word_error_rate"), "lower"),
        rate("CER", lambda row: row[1].get("character_error_rate"), "lower"),
        rate("ended by itself", of_model("ended")),
        rate("… at ½ to 2 × the length", of_model("at_length")),
        Field("length / reference", length),
        Field("× real time", of_model("real_time"), 1),
    ]
    return Table.of(lines.items(), fields)


def sound_table(systems: Mapping[str, Any], columns: Sequence[Column], longest_run: bool = True) -> Table:
    """How systems sound; systems below each other."""

    def value(column: Column) -> Field:
        return Field.of(column, lambda row: row[1].get("values", {}).get(column.key))

    fields = [
        words("", lambda row: row[0]),
        Field("characters a second", lambda row: row[1].get("speaking_rate"), 1),
        *(value(column) for column in columns),
        rate("repeated pairs of frames", lambda row: row[1].get("repeated")),
        *([Field("longest run, frames", lambda row: row[1].get("longest_run"))] if longest_run else []),
    ]
    return Table.of(systems.items(), fields)


def continuations_table(systems: Mapping[str, Any], whole: bool = True) -> Table:
    """What is said after a prompt; the recordings and the codec above the model. `whole`: all that is known."""

    def of(key: str) -> Callable[[Any], Any]:
        return lambda row: row[1].get(key)

    fields = [
        words("", lambda row: row[0]),
        Field("prompts", of("prompts")),
        *([Field("seconds", of("seconds"), 1)] if whole else []),
        rate("ended by itself", of("ended")),
        rate("with words", of("heard"), "higher"),
        Field("perplexity", of("perplexity"), better="lower"),
        rate("auto-BLEU", of("auto_bleu"), "lower"),
        rate("self-BLEU", of("self_bleu"), "lower"),
        rate("VERT", of("vert"), "lower"),
    ]
    if whole:
        fields.append(rate("self-BLEU of a prompt's samples", of("samples_self_bleu"), "lower"))
    return Table.of(systems.items(), fields)


def pairs_table(tests: Mapping[str, Any]) -> Table:
    """Likelihood tests below each other, each with its categories."""
    lines: list[tuple[str, Any]] = []
    for name, test in tests.items():
        lines += [(name, test), *((f"… {part}", entry) for part, entry in test.get("categories", {}).items())]
    fields = [
        words("likelihood test", lambda row: row[0]),
        Field("pairs", lambda row: row[1]["pairs"]),
        rate("accuracy, by likelihood a token", lambda row: row[1]["normalized"], "higher"),
        rate("by likelihood", lambda row: row[1]["total"], "higher"),
        rate("ceiling", lambda row: row[1].get("ceiling")),
    ]
    return Table.of(lines, fields)


def bits_table(datasets: Mapping[str, Any]) -> Table:
    """Speech and text, each alone and with the other in view; datasets below each other."""
    lines = [
        {
            "name": name,
            "what": what,
            "rows": entry["rows"],
            "saved": entry.get(f"{unit}_saved"),
            **{
                place: show(entry["bits"].get(view), 3)
                + ("*" if view in entry.get("not_trained_on", []) else "")
                for place, view in zip(("alone", "other"), views, strict=True)
            },
        }
        for name, entry in datasets.items()
        for unit, what, views in (
            ("speech", "speech, bits a token", VIEWS[:2]),
            ("text", "text, bits a character", VIEWS[2:]),
        )
    ]
    fields = [
        words("", "name"),
        words("", "what"),
        Field("rows", "rows"),
        Field("alone", "alone", better="lower"),
        Field("the other in view", "other", better="lower"),
        Field("saved", "saved", 3, better="higher"),
    ]
    return Table.of(lines, fields)


def retrieval_table(datasets: Mapping[str, Any]) -> Table:
    """Whether the right one is found among others; datasets below each other."""
    fields = [
        words("", "name"),
        words("find the", "find"),
        words("reading", "reading"),
        Field("trials", "trials"),
        rate("found", "accuracy", "higher"),
        rate("chance", "chance"),
    ]
    return Table.of(
        ({"name": name, **trial} for name, entry in datasets.items() for trial in entry["retrieval"]), fields
    )


# ---- the page


def _sections(
    evaluation: SLMEvaluation, content: Mapping[str, Any], tables: Mapping[str, Table], with_picture: bool
) -> list[Section]:
    codec = content["codec"]
    top: list[Block] = [
        f"`{content['command']}`",
        f"Model `{content['model']}`, codec `{codec['name']}` with fingerprint {codec['fingerprint']}.",
    ]
    sections: list[Section] = []
    if evaluation.rows:
        top += [tables["reading"], Points(_reading_notes(evaluation, content))]
        sections += _spoken_sections(evaluation, content, tables["sound"], with_picture)
    if evaluation.continuations is not None:
        sections.append(_continuations_section(evaluation, evaluation.continuations, content, tables))
    if evaluation.pairs:
        sections.append(Section("Right or wrong", [tables["pairs"], Points(_pair_notes(evaluation))]))
    if evaluation.cross_modal:
        sections.append(_cross_modal_section(evaluation.cross_modal, tables))
    if evaluation.skipped or evaluation.unfinished:
        coming = [f"{name}: still to be done" for name in evaluation.unfinished]
        reasons = [f"{name}: {reason}" for name, reason in evaluation.skipped.items()]
        sections.append(Section("Not measured", [Points([*reasons, *coming])]))
    return [Section("", top), *sections]


def _reading_notes(evaluation: SLMEvaluation, facts: Mapping[str, Any]) -> list[str]:
    notes = [
        "Ended by itself: no guard cut the sentence or a part of it.",
        "× real time: seconds of audio a second of computing, text in to waveform out, codec included "
        f"({facts['device']}, {facts['threads']} threads).",
    ]
    if facts["asr"] is not None:
        notes.insert(
            0,
            f"Word and character error rates (WER, CER) by {facts['asr']}, with 95 % bootstrap intervals over "
            "sentences; text is compared in lower case without punctuation.",
        )
    if facts["references"] is not None:
        notes.append(
            f"The numbers of “{CEILING}” are the ceiling: better than the recordings as the codec keeps them "
            "the model cannot be expected to speak. Length / reference: median (shortest–longest)."
        )
    if evaluation.unreferenced:
        notes.append(
            f"{len(evaluation.unreferenced)} sentences have no reference"
            + (
                f": beside the recordings and the codec stand the lines “{COMPARED}”, which are of the same sentences."
                if evaluation.compared
                else "."
            )
        )
    if evaluation.failures:
        name, reason = next(iter(evaluation.failures.items()))
        notes.append(f"Left out: {len(evaluation.failures)}, the first {name}: {reason}.")
    if (count := evaluation.summary(evaluation.systems[-1]).sentences) < FEW:
        notes.append(_few(count, "sentences"))
    return notes


def _spoken_sections(
    evaluation: SLMEvaluation, content: Mapping[str, Any], sound: Table, with_picture: bool
) -> list[Section]:
    sections = [Section("How it sounds", [sound, Points(_sound_notes([c.key for c in evaluation.columns]))])]
    if evaluation.bits:
        fields = [words("", lambda row: _BIT_NAMES.get(row[0], row[0])), Field("bits", lambda row: row[1], 3)]
        blocks: list[Block] = [
            f"What the model needs to predict {evaluation.bits_of} references, text and speech, in the documents it "
            f"speaks from; a token of which nothing is known takes {_uniform_bits(content['codec']):.2f} bits:",
            Table.of(evaluation.bits.items(), fields),
        ]
        sections.append(Section("Bits", blocks))
    if with_picture:
        sections[-1] = Section(
            sections[-1].title, [*sections[-1].blocks, Picture("spectrogram.png", "what the model said")]
        )
    heard = [
        [row.sentence.text, row.system, show(row.transcript or None), show("; ".join(row.cuts) or None)]
        for row in evaluation.rows
        if row.audio is not None
    ]
    blocks = [
        Table(["sentence", "", "heard", "cut"], heard[:_MOST_ROWS], words=4),
        "Every sentence is a row of `sentences.parquet`; the audio is in [audio](audio).",
    ]
    return [*sections, Section("Sentence by sentence", blocks)]


_COLUMN_NOTES = {
    "speaker_similarity": "Speaker similarity: mean cosine of the speaker embedding with those of the voice's "
    "reference recordings of other sentences.",
    "prompt_similarity": "Speaker similarity to the prompt: cosine of the speaker embeddings of what follows and of "
    "the recorded prompt.",
    "f0_spread_semitones": "F0 spread: standard deviation of F0 (WORLD's DIO and StoneMask) over voiced frames.",
    "energy_range_db": "Energy range: from the 5th to the 95th percentile of the level of voiced frames.",
}


def _sound_notes(keys: list[str], paced: bool = True) -> list[str]:
    notes = [_COLUMN_NOTES[key] for key in keys if key in _COLUMN_NOTES]
    if paced:
        notes.insert(
            0,
            "Characters a second: of the text without punctuation, from the first to the last frame within 40 dB of "
            "the loudest.",
        )
    return [
        *notes,
        "Repeated pairs of frames: share of the pairs of frames, one after the other, whose codes were there before "
        "in the same utterance (1 − distinct-2); longest run: frames in a row with the same codes, in the worst "
        "utterance.",
        "Means over utterances with 95 % bootstrap intervals.",
    ]


def _continuations_section(
    evaluation: SLMEvaluation,
    result: ContinuationResult,
    facts: Mapping[str, Any],
    tables: Mapping[str, Table],
) -> Section:
    config = facts["continuation"]
    notes = [
        f"Prompts are the first {config['prompt_seconds']:g} s of recordings ({config['split']} split of "
        f"{config['corpus']}); what follows is as long as the recording goes on, {config['seconds']:g} s at most, and "
        f"shorter where the model ends by itself. {config['samples']} samples a prompt, at temperature "
        f"{config['temperature']:g}. Intervals are over prompts, whose samples hang together.",
    ]
    if facts["asr"] is not None:
        lm = f" by {facts['text_lm']}" if facts["text_lm"] else ""
        notes += [
            "With words: share in which the recogniser heard a word; the others are in no number about words.",
            f"Perplexity{lm}, auto-BLEU and self-BLEU are of transcripts by {facts['asr']}, whose mistakes are in all "
            "three rows.",
            "auto-BLEU: how much a transcript repeats itself; self-BLEU: how much it repeats the transcripts after "
            "other prompts; up to pairs of words. VERT is their geometric mean (GSLM, arXiv 2102.01192, section "
            "5.3). All are low for a model that has much to say; of a text in which no pair comes twice, as of most "
            "short ones, auto-BLEU is 0.",
        ]
    prompts = len({row.id for row in result.rows})
    if prompts < FEW:
        notes.append(_few(prompts, "prompts"))
    if result.failures:
        name, reason = next(iter(result.failures.items()))
        notes.append(
            f"Gone on from {prompts} recordings. Nothing follows {len(result.failures)} others, the first {name}: "
            f"{reason}."
        )
    if strange := _strange(evaluation):
        notes.append(strange)
    heard = [
        [row.id, row.system, show(row.transcript or None)]
        for row in sorted(result.rows, key=lambda row: row.id)
    ]
    blocks: list[Block] = [
        tables["continuations"],
        Points(notes),
        tables["their sound"],
        Points(_sound_notes([column.key for column in result.columns], paced=False)),
        Table(["recording", "", "heard after the prompt"], heard[:_MOST_ROWS], words=3),
        "Every continuation is a row of `continuations.parquet`; the audio, prompts included, is in "
        "[continuations](continuations).",
    ]
    return Section("Going on", blocks)


def _cross_modal_section(results: list[CrossModalResult], tables: Mapping[str, Table]) -> Section:
    notes = ["Means over all tokens or characters, with 95 % bootstrap intervals over rows."]
    for result in results:
        documents = ", ".join(f"{view}: `{format}`" for view, format in result.formats.items())
        left_out = f"; {result.left_out} rows left out" if result.left_out else ""
        notes.append(f"{result.name}: documents {documents}{left_out}.")
        if result.unfamiliar:
            notes.append(
                f"*: the model has seen no such documents in training ({', '.join(result.unfamiliar)}), which makes "
                "the bits alone, and what is saved, too high."
            )
    blocks: list[Block] = [tables["bits"], Points(list(dict.fromkeys(notes)))]
    if "retrieval" in tables:
        candidates = next(result.candidates for result in results if result.trials)
        blocks += [
            tables["retrieval"],
            f"Each row among {candidates} of about one length: the text that makes a speech likeliest, and the speech "
            "that a text makes likelier than other texts do; the other way about where text is read after speech. "
            "95 % intervals over the groups of rows that are tried against each other. Every row is one of "
            "`cross_modal.parquet`.",
        ]
    return Section("Text and speech", blocks)


def _pair_notes(evaluation: SLMEvaluation) -> list[str]:
    notes = [
        "Share of the pairs in which the model finds the right recording likelier than the wrong one; 50 % is chance, "
        "and a tie counts half. 95 % intervals by Wilson's score, over pairs that do not hang together: of a word in "
        "several voices, and of a story, all are one. Every pair is a row of `pairs.parquet`.",
        "Ceiling: what is left to a model that knows everything where the codec makes the same codes of both "
        "recordings.",
    ]
    for result in evaluation.pairs:
        if result.failures:
            name, reason = next(iter(result.failures.items()))
            notes.append(f"{result.name}: {len(result.failures)} pairs left out, the first {name}: {reason}.")
    if strange := _strange(evaluation):
        notes.append(strange)
    return notes


def _strange(evaluation: SLMEvaluation) -> str | None:
    """What is to be known of a model that reads documents of a kind that it has never seen."""
    if "speech alone" not in evaluation.not_trained_on:
        return None
    return (
        "The model was trained on no document that begins with speech: speech without its text is strange to it, and "
        "it may know more than this tells."
    )


def _few(count: int, what: str) -> str:
    return (
        f"There are but {count} {what}: intervals are widened for so few (Student's t), and still rough where most "
        "values are the same."
    )


def _uniform_bits(codec: dict[str, Any]) -> float:
    """Of a token, where all codes are as likely."""
    sizes = codec["codebook_sizes"][: codec["num_quantizers"]]
    return sum(math.log2(size) for size in sizes) / len(sizes)
