"""Training of codecs."""

from codec.training.config import CodecTrainingConfig, OptimizerConfig, Stage
from codec.training.loop import TrainingData, TrainingResult, train_codec
from codec.training.validation import ValidationSet

__all__ = [
    "CodecTrainingConfig",
    "OptimizerConfig",
    "Stage",
    "TrainingData",
    "TrainingResult",
    "ValidationSet",
    "train_codec",
]
