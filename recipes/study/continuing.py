"""What a language model says after the beginnings of held-out recordings."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from codec.foundation import UserError
from codec.metrics import wilson_interval
from data import AudioError, Utterance, read_audio, write_audio
from recipes.evaluation.file_names import file_name
from recipes.evaluation.scoring import Scorer, ScoringTask
from recipes.study.config import StudyConfig
from recipes.study.material import Material, spread
from slm.evaluation.metrics import mean_of
from slm.evaluation.repetition import CodeRepetition, code_repetition
from slm.generation.speech_lm import Prompt, SpeechLM

_FOLDER = "continuations"


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
    prompt = Prompt(speaker.encode(waveform[:samples]))
    result = speaker.continue_speech(
        prompt, seconds=speaking.seconds, sampling=config.sampling, seed=config.seed + number
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
