"""A tokenizer as a codec: what of held-out recordings comes back."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data import Utterance
from recipes.evaluation.codec_evaluation import RECORDING, NamedCodec, evaluate, vocoder_of
from recipes.evaluation.codec_report import summary, write_codec_report
from recipes.evaluation.scoring import NO_RECOGNIZER, Scorer
from recipes.study.config import StudyConfig
from recipes.study.judges import naturalness_judges, speaker_judges
from recipes.study.material import Material
from recipes.study.tokenizers import Tokenizer


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
    judges = [*speaker_judges(config, device), *naturalness_judges(config, device)]
    with Scorer(settings.metrics, config.asr, processes=1, device=device, judges=judges) as scorer:
        evaluation = evaluate(named, utterances, scorer, config.gain, device, settings.stability)
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
