"""The language model of a tokenizer: trained on the study's budget, then asked what held-out recordings cost.

Each held-out recording is read whole and by itself: never cut, and no two read as one.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, log, prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from codec.foundation import Progress, RunDirectory, plain_config
from data import TokenDataset
from recipes.study.cells import Stopped
from recipes.study.config import StudyConfig
from recipes.study.material import Tokenizer
from slm import DatasetConfig, SLMTrainingConfig, train_slm
from slm.documents.config import DocumentConfig, ValidationConfig
from slm.documents.documents import Documents
from slm.documents.formats import SPEECH
from slm.evaluation.cross_modal import DocumentsByRow
from slm.models.checkpoint import SpeechCapabilities, load_checkpoint
from slm.models.likelihood import token_log_probabilities
from slm.packing.blocks import PackedBlocks
from slm.training.config import SamplesConfig
from slm.training.data import TrainingData, open_training_data
from slm.vocabulary import Vocabulary

ALONE, READ = "alone", "read"  # held-out speech by itself, and given its text
_BITS = "speech/bits_per_second"
_DECIDING = (
    "model", "voices", "documents", "batch", "optimizer", "schedule", "steps", "audio_hours", "validations", "seed",
)  # fmt: skip
# that a point of a learning curve is measured on, at most
VALIDATION_BLOCKS = SLMTrainingConfig.validation_blocks
_BARE_SPEECH = {"speech", "asr", "interleaved"}  # documents that have speech with nothing before it
_ROWS_AT_ONCE = 256  # whose documents are held in memory


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
        for line in RunDirectory(training.output).read_log()
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
    documents = config.documents if with_text else replace(config.documents, formats={"speech": 1.0})
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
        documents=documents,
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
    length = config.batch.length
    documents = Documents(data.training, data.vocabulary, config.documents, config.seed, longest=length)
    seconds = sum(
        float(rows.lengths.sum()) / (rows.info.frame_rate * rows.info.num_quantizers)
        for rows in data.training
    )
    return seconds, len(PackedBlocks(documents, length, epoch=0))


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


# ---- held-out recordings


def predict(
    checkpoint: Path, dataset: Path, documents: DocumentConfig, block_length: int, device: str
) -> dict[str, Any]:
    """Bits of the speech of every validation row, in a document of its own: alone, and given its text.

    The end of the speech does not count, nor does anything but speech. None in place of bits: the row has no text (no
    word times, where the model speaks in `aligned` documents), or has more tokens than the model has positions.
    """
    rows = TokenDataset.open(dataset, "validation")
    vocabulary = Vocabulary.from_pretrained(checkpoint)
    model = load_checkpoint(checkpoint, device, torch.float32)
    longest = int(model.config.max_position_embeddings)
    words = SpeechCapabilities.read(checkpoint).words_per_span
    taught = {name for name, weight in documents.formats.items() if weight > 0}
    formats = {ALONE: "speech"}
    if (name := read_format(documents.formats)) is not None:
        formats[READ] = name
    views: dict[str, Any] = {}
    with Progress(len(rows) * len(formats), unit="documents", label="predicting") as progress:
        for view, name in formats.items():
            made = DocumentsByRow(rows, vocabulary, name, words, documents)
            fitting = [row for row in made.rows if made.length(row) <= longest]
            bits: list[float | None] = [None] * len(rows)
            progress.update(len(rows) - len(fitting))
            for start in range(0, len(fitting), _ROWS_AT_ONCE):
                part = fitting[start : start + _ROWS_AT_ONCE]
                built = [made[row] for row in part]
                told = token_log_probabilities(
                    model, [document.targets for document in built], vocabulary.pad_id, progress.update
                )
                for row, document, nats in zip(part, built, told, strict=True):
                    bits[row] = -float(nats[document.modality[1:] == SPEECH].sum()) / log(2)
            views[view] = {
                "document": name,
                "trained_on": bool(taught & ({name} if view == READ else _BARE_SPEECH)),
                "bits": bits,
                "too_long": len(made.rows) - len(fitting),
                "without_text": len(rows) - len(made.rows),
                "beyond_block": sum(made.length(row) > block_length for row in fitting),
            }
    return {
        "ids": [rows.id(row) for row in range(len(rows))],
        "seconds": [rows.seconds(row) for row in range(len(rows))],
        "positions": longest,
        "views": views,
    }
