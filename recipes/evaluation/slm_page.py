"""The page of `evaluate-slm`, report.md: tables with what has to be known to read them."""

import math
from typing import Any

from codec.metrics import FEW
from recipes.evaluation.slm_continuations import ContinuationResult
from recipes.evaluation.slm_cross_modal import CrossModalResult
from recipes.evaluation.slm_evaluation import CEILING, SLMEvaluation
from recipes.evaluation.slm_tables import (
    COMPARED,
    NOTHING,
    bits_table,
    continuations_sound_table,
    continuations_table,
    pairs_table,
    results_table,
    retrieval_table,
    sound_table,
)
from recipes.reporting.pictures import markdown_table

_BIT_NAMES = {
    "text/bits_per_byte": "text, bits a byte",
    "speech/bits_per_token": "speech, bits a token",
    "speech/bits_per_second": "speech, bits a second",
    "control/bits_per_token": "where words and speech change, bits a token",
}
_MOST_ROWS = 200  # of a table in the page; the Parquet files have them all


def page(evaluation: SLMEvaluation, facts: dict[str, Any], with_picture: bool) -> str:
    """Markdown of everything that was measured; `facts` as `write_slm_report` has them."""
    codec = facts["codec"]
    parts = [
        f"# {facts['model']}"
        + (f" reading {facts['sentences']['count']} sentences" if evaluation.rows else ""),
        f"`{facts['command']}`",
        f"Model `{facts['model']}`, codec `{codec['name']}` with fingerprint {codec['fingerprint']}.",
    ]
    if evaluation.rows:
        parts += _spoken_part(evaluation, facts, with_picture)
    if evaluation.continuations is not None:
        parts += _continuations_part(evaluation, evaluation.continuations, facts)
    if evaluation.pairs:
        parts += [
            "## Right or wrong",
            pairs_table(evaluation.pairs),
            _list(_pair_notes(evaluation)),
        ]
    if evaluation.cross_modal:
        parts += _cross_modal_part(evaluation.cross_modal)
    if evaluation.skipped or evaluation.unfinished:
        coming = [f"{name}: still to be done" for name in evaluation.unfinished]
        reasons = [f"{name}: {reason}" for name, reason in evaluation.skipped.items()]
        parts += ["## Not measured", _list([*reasons, *coming])]
    return "\n\n".join(parts) + "\n"


def _spoken_part(evaluation: SLMEvaluation, facts: dict[str, Any], with_picture: bool) -> list[str]:
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
    codec = facts["codec"]
    parts = [
        results_table(evaluation),
        _list(notes),
        "## How it sounds",
        sound_table(evaluation),
        _list(_sound_notes([column.key for column in evaluation.columns])),
    ]
    if evaluation.bits:
        rows = [[_BIT_NAMES.get(name, name), f"{value:.3f}"] for name, value in evaluation.bits.items()]
        parts += [
            "## Bits",
            f"What the model needs to predict {evaluation.bits_of} references, text and speech, in the documents it "
            f"speaks from; a token of which nothing is known takes {_uniform_bits(codec):.2f} bits:",
            markdown_table(["", "bits"], rows),
        ]
    if with_picture:
        parts.append("![what the model said](spectrogram.png)")
    heard = [
        [row.sentence.text, row.system, row.transcript or NOTHING, "; ".join(row.cuts) or NOTHING]
        for row in evaluation.rows
        if row.audio is not None
    ]
    parts += [
        "## Sentence by sentence",
        markdown_table(["sentence", "", "heard", "cut"], heard[:_MOST_ROWS], words=4),
        "Every sentence is a row of `sentences.parquet`; the audio is in [audio](audio).",
    ]
    return parts


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


def _continuations_part(
    evaluation: SLMEvaluation, result: ContinuationResult, facts: dict[str, Any]
) -> list[str]:
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
        [row.id, row.system, row.transcript or NOTHING] for row in sorted(result.rows, key=lambda row: row.id)
    ]
    return [
        "## Going on",
        continuations_table(result),
        _list(notes),
        continuations_sound_table(result),
        _list(_sound_notes([column.key for column in result.columns], paced=False)),
        markdown_table(["recording", "", "heard after the prompt"], heard[:_MOST_ROWS], words=3),
        "Every continuation is a row of `continuations.parquet`; the audio, prompts included, is in "
        "[continuations](continuations).",
    ]


def _cross_modal_part(results: list[CrossModalResult]) -> list[str]:
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
    parts = ["## Text and speech", bits_table(results), _list(list(dict.fromkeys(notes)))]
    if any(result.trials for result in results):
        candidates = next(result.candidates for result in results if result.trials)
        parts += [
            retrieval_table(results),
            f"Each row among {candidates} of about one length: the text that makes a speech likeliest, and the speech "
            "that a text makes likelier than other texts do; the other way about where text is read after speech. "
            "95 % intervals over the groups of rows that are tried against each other. Every row is one of "
            "`cross_modal.parquet`.",
        ]
    return parts


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


def _list(notes: list[str]) -> str:
    return "\n".join(f"- {note}" for note in notes)
