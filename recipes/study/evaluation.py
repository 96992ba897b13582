"""A tokenizer as a codec, and what its language model says: the measurements of a study.

Codecs: what of held-out recordings comes back. Language models: held-out sentences read aloud, held-out recordings gone
on with.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codec.foundation import UserError
from codec.metrics import SpeakerEmbedder, normalize_transcript, wilson_interval
from data import AudioError, Utterance, read_audio, write_audio
from recipes.evaluation.codec_evaluation import RECORDING, NamedCodec, vocoder_of
from recipes.evaluation.codec_evaluation import evaluate as evaluate_codecs
from recipes.evaluation.codec_report import summary, write_codec_report
from recipes.evaluation.inputs import NetworkJudges, spread
from recipes.evaluation.scoring import NO_RECOGNIZER, Scorer, ScoringTask
from recipes.evaluation.sentences import References, Sentence, VoiceLikeness
from recipes.evaluation.slm_evaluation import SLMEvaluation
from recipes.evaluation.slm_evaluation import evaluate as evaluate_reading
from recipes.evaluation.slm_report import write_slm_report
from recipes.reporting.provenance import file_name
from recipes.study.config import StudyConfig
from recipes.study.material import Material, Tokenizer
from slm.evaluation.metrics import CodeRepetition, code_repetition, mean_of
from slm.generation.speech_lm import SpeechLM

_FOLDER = "continuations"


def reconstruct(
    config: StudyConfig,
    ready: Tokenizer,
    material: Material,
    utterances: Sequence[Utterance],
    directory: Path,
    device: str,
) -> dict[str, Any]:
    """Leaves what `evaluate-codec` leaves, and returns the part of it that no clock decides."""
    settings = config.reconstruction
    named = [NamedCodec(ready.name, ready.codec)]
    networks = NetworkJudges.open(config.speaker_model, config.utmos, device, flag="")
    with Scorer(
        settings.metrics, config.asr, processes=1, device=device, judges=networks.comparing
    ) as scorer:
        evaluation = evaluate_codecs(named, utterances, scorer, config.gain, device, settings.stability)
        facts: dict[str, Any] = {
            "command": "codec-slm study",
            "codecs": {ready.name: {**ready.info.to_dict(), "location": ready.location}},
            "corpus": {
                "name": material.corpus.name,
                "location": material.corpus.location,
                "split": "validation",
                "gain": config.gain,
            },
            "asr": scorer.asr,
        }
    write_codec_report(directory, evaluation, facts)
    numbers = summary(evaluation, facts)
    names = {RECORDING: "recording", vocoder_of(ready.name): "vocoder", ready.name: "codec"}
    return {
        "utterances": numbers["utterances"],
        "seconds": numbers["seconds"],
        "columns": [asdict(column) for column in evaluation.columns],
        "systems": {names[system]: values for system, values in numbers["systems"].items()},
        "stability": numbers["codecs"][ready.name]["stability"],
        "asr": facts["asr"] if config.asr != NO_RECOGNIZER else None,
        "skipped": numbers["skipped"],
        "failures": numbers["failures"],
        "examples": [example.id.replace("/", "_") for example in evaluation.examples],
    }


def speak(
    config: StudyConfig, ready: Tokenizer, checkpoint: Path, material: Material, directory: Path, device: str
) -> dict[str, Any]:
    """Leaves what `evaluate-slm` leaves, and continuations/; returns the part of it that no clock decides."""
    speaker = SpeechLM.from_pretrained(checkpoint, device=device)
    speaker.codec = ready.codec  # where the checkpoint says that it is, it need not be: studies are moved
    networks = NetworkJudges.open(config.speaker_model, config.utmos, device, flag="")
    with Scorer(
        config.speaking.metrics, config.asr, 1, device, judges=networks.alone, not_given=networks.not_given
    ) as scorer:
        read = _reading(config, speaker, checkpoint, material, scorer, networks.embedder, directory, device)
        continued = go_on(config, speaker, material, scorer, directory)
    return {**read, "continuations": continued}


def _reading(
    config: StudyConfig,
    speaker: SpeechLM,
    checkpoint: Path,
    material: Material,
    scorer: Scorer,
    embedder: SpeakerEmbedder | None,
    directory: Path,
    device: str,
) -> dict[str, Any]:
    reads = speaker.capabilities.speak_format is not None and config.speaking.sentences
    spoken = _unique(material) if reads else []
    chosen, failures = _amplified(config, speaker, spread(spoken, config.speaking.sentences), directory)
    nothing: dict[str, Any] = {"systems": {}, "columns": [], "bits": {}, "rows": [], "voice": None}
    if not chosen:
        return {**nothing, "skipped": scorer.skipped, "failures": failures}
    sentences = [Sentence(utterance.id, utterance.text or "") for utterance in chosen]
    voice = next(iter(speaker.vocabulary.voices), None)
    references = References(chosen)
    try:
        evaluation = evaluate_reading(
            speaker,
            sentences,
            [voice],
            references,
            scorer,
            directory,
            config.sampling,
            config.speaking.candidates,
            config.seed,
            None if embedder is None else VoiceLikeness(embedder, references),
        )
    except UserError as error:  # it can say none of them: that is a result, and no reason to end a study
        return {**nothing, "skipped": scorer.skipped, "failures": {**failures, "all sentences": str(error)}}
    facts: dict[str, Any] = {
        "command": "codec-slm study",
        "model": str(checkpoint),
        "codec": speaker.vocabulary.codec.to_dict(),
        "sentences": {"location": material.corpus.location, "count": len(sentences)},
        "pairs": None,
        "references": material.corpus.location,
        "sampling": {
            **asdict(config.sampling),
            "candidates": config.speaking.candidates,
            "seed": config.seed,
        },
        "asr": scorer.asr,
        "device": device,
        "threads": torch.get_num_threads(),
    }
    write_slm_report(directory, evaluation, facts)
    return {
        "systems": {system: _numbers(evaluation, system) for system in evaluation.systems},
        "columns": [asdict(column) for column in evaluation.columns],
        "bits": evaluation.bits,
        "rows": _rows(evaluation, chosen),
        "voice": voice,
        "skipped": evaluation.skipped,
        "failures": {**failures, **evaluation.failures},
    }


def _unique(material: Material) -> list[Utterance]:
    """Held-out recordings with a text that can be spoken, each sentence once."""
    found: dict[str, Utterance] = {}
    for utterance in material.held_out:
        said = normalize_transcript(utterance.text or "")
        if any(map(str.isalnum, said)):
            found.setdefault(said, utterance)
    return list(found.values())


def _amplified(
    config: StudyConfig, speaker: SpeechLM, utterances: list[Utterance], directory: Path
) -> tuple[list[Utterance], dict[str, str]]:
    """The recordings as the codec was given them, as files to be heard; and why some cannot be read."""
    rate = speaker.vocabulary.codec.sampling_rate
    written, failures = [], {}
    for utterance in utterances:
        path = directory / "recordings" / f"{file_name(utterance.id)}.wav"
        path.parent.mkdir(exist_ok=True)
        try:
            write_audio(path, read_audio(utterance.path, rate) * config.gain, rate)
        except AudioError as error:
            failures[f"recording {utterance.id}"] = str(error)
            continue
        written.append(replace(utterance, path=path))
    return written, failures


def _numbers(evaluation: SLMEvaluation, system: str) -> dict[str, Any]:
    numbers = asdict(evaluation.summary(system))
    del numbers["real_time"]
    return numbers


def _rows(evaluation: SLMEvaluation, references: list[Utterance]) -> list[dict[str, Any]]:
    recordings = {utterance.id: f"recordings/{Path(str(utterance.path)).name}" for utterance in references}
    return [
        {
            "id": row.sentence.id,
            "text": row.sentence.text,
            "audio": row.audio,
            "recording": recordings[row.sentence.id],
            "heard": row.transcript,
        }
        for row in evaluation.rows
        if row.audio is not None
    ]


# ---- continuations


@dataclass(frozen=True)
class _Continuation:
    """What follows one prompt."""

    row: dict[str, Any]
    said: Tensor  # (samples,) behind the prompt
    repetition: CodeRepetition  # of its codes


def go_on(
    config: StudyConfig, speaker: SpeechLM, material: Material, scorer: Scorer, directory: Path
) -> dict[str, Any]:
    """Go on from the beginnings of held-out recordings, half of each at most; refused ones have a reason.

    Leaves continuations/. Only what is behind the prompt is measured.
    """
    if not config.speaking.continuations:
        return {"rows": [], "summary": {}, "columns": []}
    (directory / _FOLDER).mkdir(exist_ok=True)
    made: list[_Continuation] = []
    refused: list[dict[str, Any]] = []
    for number, utterance in enumerate(spread(material.held_out, config.speaking.continuations)):
        try:
            made.append(_continued(config, speaker, utterance, number, directory))
        except (AudioError, UserError) as error:  # not to be read, or more tokens than the model reads
            refused.append({"id": utterance.id, "audio": None, "reason": str(error)})
    rate = speaker.vocabulary.codec.sampling_rate
    tasks = [
        (number, ScoringTask(entry.said.numpy().astype(np.float32), rate))
        for number, entry in enumerate(made)
        if len(entry.said) and scorer.columns
    ]
    values = {number: scores.values for number, scores in scorer.run(tasks)}
    for number, entry in enumerate(made):
        entry.row["values"] = values.get(number, {})
    return {
        "rows": [*(entry.row for entry in made), *refused],
        "columns": [asdict(column) for column in scorer.columns],
        "summary": _summary(made, len(refused)),
    }


def _continued(
    config: StudyConfig, speaker: SpeechLM, utterance: Utterance, number: int, directory: Path
) -> _Continuation:
    speaking, codec = config.speaking, speaker.vocabulary.codec
    waveform = read_audio(utterance.path, codec.sampling_rate) * config.gain
    samples = min(round(speaking.prompt_seconds * codec.sampling_rate), len(waveform) // 2)
    prompt = speaker.read(waveform[:samples])
    result = speaker.continue_speech(
        prompt,
        seconds=speaking.seconds,
        sampling=config.sampling,
        seed=config.seed + number,
        least_seconds=0.0,  # whether it ends at once is judged
    )
    path = Path(_FOLDER) / f"{file_name(utterance.id)}.wav"
    write_audio(directory / path, result.audio, result.sampling_rate)
    said = result.audio[result.prompt_frames * codec.hop_length :]
    row = {
        "id": utterance.id,
        "audio": path.as_posix(),
        "prompt_seconds": result.prompt_frames / codec.frame_rate,
        "seconds": len(said) / result.sampling_rate,
        # where a guard cut it off, the model did not end it
        "ended": result.ended and not result.cuts,
        "cuts": result.cuts,
    }
    return _Continuation(row, said, code_repetition(result.codes[:, result.prompt_frames :].numpy()))


def _summary(made: Sequence[_Continuation], refused: int) -> dict[str, Any]:
    """All of them together, with 95 % intervals over prompts."""
    rows = [entry.row for entry in made]
    keys = dict.fromkeys(key for row in rows for key in row["values"])
    return {
        "continuations": len(rows),
        "refused": refused,
        "seconds": float(np.mean([row["seconds"] for row in rows])) if rows else None,
        "ended": asdict(wilson_interval(sum(row["ended"] for row in rows), len(rows))),
        "repeated": asdict(mean_of((entry.repetition.repeated for entry in made), at_most=1.0)),
        "longest_run": max((entry.repetition.longest_run for entry in made), default=None),
        "values": {
            key: asdict(mean_of(row["values"].get(key, float("nan")) for row in rows)) for key in keys
        },
    }
