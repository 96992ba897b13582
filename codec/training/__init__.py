"""Training of codecs."""

from codec.training.batches import TrainingData
from codec.training.checkpoint import load_trained
from codec.training.config import CodecTrainingConfig, OptimizerConfig, Stage
from codec.training.loop import TrainingResult, train_codec
from codec.training.start import model_config
from codec.training.validation import ValidationSet

__all__ = [
    "CodecTrainingConfig",
    "OptimizerConfig",
    "Stage",
    "TrainingData",
    "TrainingResult",
    "ValidationSet",
    "load_trained",
    "model_config",
    "train_codec",
]
