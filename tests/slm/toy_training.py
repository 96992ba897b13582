"""A training run of seconds."""

from pathlib import Path
from typing import Any

from slm.documents.config import DocumentConfig
from slm.models.config import ModelConfig
from slm.models.warm_start import Start
from slm.training.config import (
    BatchConfig,
    DatasetConfig,
    OptimizerConfig,
    SamplesConfig,
    Schedule,
    SLMTrainingConfig,
)
from slm.training.data import TrainingData
from slm.training.loop import TrainingResult, train_slm
from slm.vocabulary import Vocabulary
from tests.slm.token_rows import MemoryRows, codec_info, speech_rows, train_text_model

CODEC = codec_info((64,))


def toy_config(output: Path, **changes: Any) -> SLMTrainingConfig:
    """Two small layers on blocks of 256 tokens, with all that randomness touches: dropout, corruption, tags."""
    settings = dict(
        datasets=[DatasetConfig("rows")],
        text_model="made by the test",
        output=str(output),
        model=ModelConfig(
            layers=2, hidden_size=32, head_dim=16, max_positions=512, speech_embeddings="random", dropout=0.1
        ),
        documents=DocumentConfig(formats={"tts": 2, "aligned": 2, "asr": 1}, voice_tag_probability=0.5),
        batch=BatchConfig(length=256, blocks=4, blocks_per_forward=2),
        optimizer=OptimizerConfig(learning_rate=3e-3),
        schedule=Schedule(warmup_steps=3),
        max_steps=12,
        precision="float32",
        samples=SamplesConfig(count=0),
        log_every=1,
        validate_every=4,
        validation_blocks=2,
        checkpoint_every=3,
    )
    return SLMTrainingConfig(**(settings | changes))


def toy_data(config: SLMTrainingConfig, training: list[MemoryRows] | None = None) -> TrainingData:
    """Random speech with texts; the text model is made once beside the run."""
    voices = ["slt", "rms"]
    if config.start_from is not None:
        vocabulary = Start.open(config.start_from).extended_vocabulary(CODEC, voices)
    else:
        directory = Path(config.output).parent
        model = directory / "char.model"
        if not model.exists():
            train_text_model(directory, "char")
        vocabulary = Vocabulary.build(model, CODEC, voices)
    training = training or [
        speech_rows(24, seed=number, codec=CODEC) for number in range(len(config.datasets))
    ]
    validation = {entry.path: speech_rows(4, seed=9, codec=CODEC) for entry in config.datasets}
    return TrainingData(config, training, [f"hash {len(rows)}" for rows in training], validation, vocabulary)


def toy_run(output: Path, training: list[MemoryRows] | None = None, **changes: Any) -> TrainingResult:
    """Train, or go on."""
    config = toy_config(output, **changes)
    return train_slm(config, toy_data(config, training))
