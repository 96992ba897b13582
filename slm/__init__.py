"""The language model over text and speech tokens: vocabulary, documents, training, generation."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slm.bundled import bundled_slms, find_slm
    from slm.documents import Document, DocumentConfig, Documents
    from slm.generation.bounds import SpeechBounds
    from slm.generation.sampling import SamplingConfig
    from slm.generation.speech_lm import SpeechLM
    from slm.generation.speech_stream import SpeechChunk, SpeechStream
    from slm.generation.spoken import (
        Prompt,
        SpeakingProgress,
        SpeechRequest,
        SpokenResult,
        SpokenSpan,
        TranscribedResult,
    )
    from slm.models.configuration import ModelConfig
    from slm.models.merging import merge
    from slm.models.start_config import StartConfig, TuningConfig
    from slm.training.config import BatchConfig, DatasetConfig, OptimizerConfig, SLMTrainingConfig
    from slm.training.data import TrainingData, open_training_data
    from slm.training.loop import TrainingResult, train_slm
    from slm.training.samples_config import SamplesConfig
    from slm.vocabulary import Vocabulary

# by module, imported when first asked for: torch and transformers take seconds that `--help` should not
_PUBLIC = {
    "slm.generation.bounds": ["SpeechBounds"],
    "slm.bundled": ["bundled_slms", "find_slm"],
    "slm.models.configuration": ["ModelConfig"],
    "slm.documents": ["Document", "DocumentConfig", "Documents"],
    "slm.models.merging": ["merge"],
    "slm.training.samples_config": ["SamplesConfig"],
    "slm.generation.sampling": ["SamplingConfig"],
    "slm.generation.speech_lm": ["SpeechLM"],
    "slm.generation.speech_stream": ["SpeechChunk", "SpeechStream"],
    "slm.generation.spoken": [
        "Prompt",
        "SpeakingProgress",
        "SpeechRequest",
        "SpokenResult",
        "SpokenSpan",
        "TranscribedResult",
    ],
    "slm.models.start_config": ["StartConfig", "TuningConfig"],
    "slm.training.loop": ["TrainingResult", "train_slm"],
    "slm.training.config": ["BatchConfig", "DatasetConfig", "OptimizerConfig", "SLMTrainingConfig"],
    "slm.training.data": ["TrainingData", "open_training_data"],
    "slm.vocabulary": ["Vocabulary"],
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = [
    "BatchConfig",
    "DatasetConfig",
    "Document",
    "DocumentConfig",
    "Documents",
    "ModelConfig",
    "OptimizerConfig",
    "Prompt",
    "SLMTrainingConfig",
    "SamplesConfig",
    "SamplingConfig",
    "SpeakingProgress",
    "SpeechBounds",
    "SpeechChunk",
    "SpeechLM",
    "SpeechRequest",
    "SpeechStream",
    "SpokenResult",
    "SpokenSpan",
    "StartConfig",
    "TrainingData",
    "TrainingResult",
    "TranscribedResult",
    "TuningConfig",
    "Vocabulary",
    "bundled_slms",
    "find_slm",
    "merge",
    "open_training_data",
    "train_slm",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'slm' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
