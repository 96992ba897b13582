"""What the language model of a tokenizer says: held-out sentences read aloud, held-out recordings gone on with."""

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from codec.metrics import normalize_transcript
from codec.runs import UserError
from data import AudioError, Utterance, read_audio, write_audio
from recipes.evaluation.scoring import Scorer
from recipes.evaluation.sentences import References, Sentence
from recipes.evaluation.slm_evaluation import SLMEvaluation, evaluate
from recipes.evaluation.slm_report import write_slm_report
from recipes.study.config import StudyConfig
from recipes.study.material import Material, spread
from recipes.study.tokenizers import Tokenizer
from slm.generation.speech_lm import Prompt, SpeechLM


def speak(
    config: StudyConfig, ready: Tokenizer, checkpoint: Path, material: Material, directory: Path, device: str
) -> dict[str, Any]:
    """Leaves what `evaluate-slm` leaves, and continuations/; returns the part of it that no clock decides."""
    speaker = SpeechLM.from_pretrained(checkpoint, device=device)
    speaker.codec = ready.codec  # where the checkpoint says that it is, it need not be: studies are moved
    return {
        **_reading(config, speaker, checkpoint, material, directory, device),
        "continuations": _continuations(config, speaker, material, directory),
    }


def _reading(
    config: StudyConfig, speaker: SpeechLM, checkpoint: Path, material: Material, directory: Path, device: str
) -> dict[str, Any]:
    spoken = (
        _unique(material) if speaker.habits.speak_format is not None and config.speaking.sentences else []
    )
    if not spoken:
        return {"systems": {}, "bits": {}, "rows": [], "voice": None, "skipped": {}}
    chosen = spread(spoken, config.speaking.sentences)
    references = [_amplified(config, speaker, utterance, directory) for utterance in chosen]
    sentences = [Sentence(utterance.id, utterance.text or "") for utterance in chosen]
    voice = next(iter(speaker.vocabulary.voices), None)
    with Scorer([], config.asr, processes=1, device=device) as scorer:
        evaluation = evaluate(
            speaker,
            sentences,
            [voice],
            References(references),
            scorer,
            directory,
            config.sampling,
            config.speaking.candidates,
            config.seed,
        )
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
        "bits": evaluation.bits,
        "rows": _rows(evaluation, references),
        "voice": voice,
        "skipped": evaluation.skipped,
    }


def _unique(material: Material) -> list[Utterance]:
    """Held-out recordings with a text that can be spoken, each sentence once."""
    found: dict[str, Utterance] = {}
    for utterance in material.held_out:
        said = normalize_transcript(utterance.text or "")
        if any(map(str.isalnum, said)):
            found.setdefault(said, utterance)
    return list(found.values())


def _amplified(config: StudyConfig, speaker: SpeechLM, utterance: Utterance, directory: Path) -> Utterance:
    """The recording as the codec was given it, as a file to be heard."""
    rate = speaker.vocabulary.codec.sampling_rate
    path = directory / "recordings" / f"{_file_name(utterance.id)}.wav"
    path.parent.mkdir(exist_ok=True)
    write_audio(path, read_audio(utterance.path, rate) * config.gain, rate)
    return replace(utterance, path=path)


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


def _continuations(
    config: StudyConfig, speaker: SpeechLM, material: Material, directory: Path
) -> list[dict[str, Any]]:
    """Go on from the beginnings of held-out recordings, half of each at most."""
    speaking, rate = config.speaking, speaker.vocabulary.codec.sampling_rate
    if not speaking.continuations:
        return []
    (directory / "continuations").mkdir(exist_ok=True)
    found: list[dict[str, Any]] = []
    for number, utterance in enumerate(spread(material.held_out, speaking.continuations)):
        path = Path("continuations") / f"{_file_name(utterance.id)}.wav"
        try:
            waveform = read_audio(utterance.path, rate) * config.gain
            samples = min(round(speaking.prompt_seconds * rate), len(waveform) // 2)
            prompt = Prompt(speaker.encode(waveform[:samples]))
            result = speaker.continue_speech(
                prompt, seconds=speaking.seconds, sampling=config.sampling, seed=config.seed + number
            )
        except AudioError:
            continue
        except UserError as error:  # more tokens than the model reads
            found.append({"id": utterance.id, "audio": None, "reason": str(error)})
            continue
        write_audio(directory / path, result.audio, result.sampling_rate)
        found.append(
            {
                "id": utterance.id,
                "audio": path.as_posix(),
                "prompt_seconds": result.prompt_frames / speaker.vocabulary.codec.frame_rate,
                "seconds": result.seconds,
                "ended": result.ended,
            }
        )
    return found


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text).strip("._") or "_"
