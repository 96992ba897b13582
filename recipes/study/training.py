"""The language model of a tokenizer: the study's size, the study's budget."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, prod
from pathlib import Path
from typing import Any

from safetensors import safe_open

from codec.foundation import RunDirectory, plain_config
from recipes.study.cells import Stopped
from recipes.study.config import StudyConfig
from recipes.study.tokenizers import Tokenizer
from slm import DatasetConfig, SLMTrainingConfig, train_slm
from slm.documents import Documents
from slm.packing.blocks import PackedBlocks
from slm.text.config import ValidationConfig
from slm.training.config import SamplesConfig
from slm.training.data import TrainingData, open_training_data

ALONE, READ = "alone", "read"  # held-out speech by itself, and given its text
_BITS = "speech/bits_per_second"
_DECIDING = (
    "model", "voices", "documents", "batch", "optimizer", "schedule", "steps", "audio_hours", "validations", "seed",
)  # fmt: skip
VALIDATION_BLOCKS = (
    SLMTrainingConfig.validation_blocks
)  # that a point of a learning curve is measured on, at most


def learn(
    config: StudyConfig, ready: Tokenizer, dataset: Path, text_model: Path, with_text: bool, directory: Path
) -> dict[str, Any]:
    """Train in `directory`/run and return what came of it. Raises Stopped where a signal ended it."""
    training = _training_config(config, ready, dataset, text_model, with_text, directory / "run")
    data = open_training_data(training)
    seconds, blocks = _epoch(config, data)
    steps = config.steps or max(
        1, round(3_600 * (config.audio_hours or 0.0) / seconds * blocks / config.batch.blocks)
    )
    every = max(1, ceil(steps / config.validations))
    training = replace(
        training, max_steps=steps, validate_every=every, checkpoint_every=every, log_every=every
    )
    result = train_slm(training, replace(data, config=training))
    if result.final is None:
        raise Stopped
    tokens = config.batch.blocks * config.batch.length  # of a step
    hours = seconds / 3_600 / blocks * config.batch.blocks
    curve = [
        {"step": line["step"], "audio_hours": line["step"] * hours, **bits}
        for line in RunDirectory(training.output, writes_tensorboard=False).read_log()
        if (bits := _bits(line))
    ]
    return {
        "steps": steps,
        "tokens": steps * tokens,
        "audio_hours": steps * hours,
        "epochs": steps * config.batch.blocks / blocks,
        "parameters": _parameters(result.final / "model.safetensors"),
        "vocabulary": len(data.vocabulary),
        "curve": curve,  # as training validates: on so many blocks, in which documents that are longer are cut
    }


def read_format(formats: dict[str, float]) -> str | None:
    """The document in which speech follows its text, where the model learns one."""
    return next((name for name in ("aligned", "tts") if formats.get(name, 0) > 0), None)


def decides(config: StudyConfig) -> dict[str, Any]:
    """What of a study's settings decides a language model, as JSON has it."""
    return plain_config({name: getattr(config, name) for name in _DECIDING})


def _training_config(
    config: StudyConfig, ready: Tokenizer, dataset: Path, text_model: Path, with_text: bool, output: Path
) -> SLMTrainingConfig:
    validation = {ALONE: ValidationConfig(str(dataset), formats={"speech": 1.0})}
    if with_text and (name := read_format(config.documents.formats)):
        validation[READ] = ValidationConfig(str(dataset), formats={name: 1.0})
    return SLMTrainingConfig(
        datasets=[DatasetConfig(str(dataset))],
        output=str(output),
        text_model=str(text_model),
        codec=ready.location,
        voices=config.voices,
        model=config.model,
        validation=validation,
        documents=config.documents,
        batch=config.batch,
        optimizer=config.optimizer,
        schedule=config.schedule,
        max_steps=config.steps or 1,
        # what the model says is heard once it is done
        samples=SamplesConfig(count=0),
        trackers=[],
        seed=config.seed,
    )


def _epoch(config: StudyConfig, data: TrainingData) -> tuple[float, int]:
    """Seconds of speech, and blocks that they fill, if every recording comes once."""
    documents = Documents(data.training, data.vocabulary, config.documents, config.seed)
    seconds = sum(
        float(rows.lengths.sum()) / (rows.info.frame_rate * rows.info.num_quantizers)
        for rows in data.training
    )
    return seconds, len(PackedBlocks(documents, config.batch.length, epoch=0))


def _bits(line: dict[str, Any]) -> dict[str, float]:
    """Of one line of the log: bits a second of each validation set."""
    found = {
        name: line[f"validation/{name}/{_BITS}"]
        for name in (ALONE, READ)
        if f"validation/{name}/{_BITS}" in line
    }
    if not found and f"validation/{_BITS}" in line:  # of a single set the log gives the name away
        found = {ALONE: line[f"validation/{_BITS}"]}
    return found


def _parameters(weights: Path) -> int:
    with safe_open(weights, framework="pt") as file:
        shapes: Sequence[list[int]] = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    return sum(prod(shape) for shape in shapes)
