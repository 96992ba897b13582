"""What the language model of a tokenizer says: held-out sentences read aloud, held-out recordings gone on with."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from codec.foundation import UserError
from codec.metrics import SpeakerEmbedder, normalize_transcript
from data import AudioError, Utterance, read_audio, write_audio
from recipes.evaluation.file_names import file_name
from recipes.evaluation.scoring import Scorer
from recipes.evaluation.sentences import References, Sentence
from recipes.evaluation.slm_evaluation import SLMEvaluation, evaluate
from recipes.evaluation.slm_report import write_slm_report
from recipes.evaluation.slm_voices import VoiceLikeness
from recipes.study.config import StudyConfig
from recipes.study.continuing import go_on
from recipes.study.judges import naturalness_judges, speaker_embedder
from recipes.study.material import Material, spread
from recipes.study.tokenizers import Tokenizer
from slm.generation.speech_lm import SpeechLM

_NOT_GIVEN = {
    "UTMOS": "no weights: utmos, the file utmos22_strong_step7459_v1.pt of github.com/tarepan/SpeechMOS",
    "speaker similarity": "no model: speaker_model, such as microsoft/wavlm-base-plus-sv",
}


def speak(
    config: StudyConfig, ready: Tokenizer, checkpoint: Path, material: Material, directory: Path, device: str
) -> dict[str, Any]:
    """Leaves what `evaluate-slm` leaves, and continuations/; returns the part of it that no clock decides."""
    speaker = SpeechLM.from_pretrained(checkpoint, device=device)
    speaker.codec = ready.codec  # where the checkpoint says that it is, it need not be: studies are moved
    judges, embedder = naturalness_judges(config, device), speaker_embedder(config, device)
    given = {"UTMOS": bool(judges), "speaker similarity": embedder is not None}
    not_given = {name: reason for name, reason in _NOT_GIVEN.items() if not given[name]}
    with Scorer(config.speaking.metrics, config.asr, 1, device, judges=judges, not_given=not_given) as scorer:
        read = _reading(config, speaker, checkpoint, material, scorer, embedder, directory, device)
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
    reads = speaker.habits.speak_format is not None and config.speaking.sentences
    spoken = _unique(material) if reads else []
    chosen, failures = _amplified(config, speaker, spread(spoken, config.speaking.sentences), directory)
    nothing: dict[str, Any] = {"systems": {}, "columns": [], "bits": {}, "rows": [], "voice": None}
    if not chosen:
        return {**nothing, "skipped": scorer.skipped, "failures": failures}
    sentences = [Sentence(utterance.id, utterance.text or "") for utterance in chosen]
    voice = next(iter(speaker.vocabulary.voices), None)
    references = References(chosen)
    try:
        evaluation = evaluate(
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
