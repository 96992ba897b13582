"""The language model over text and speech tokens: vocabulary, documents, training, generation."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slm.bounds import SpeechBounds
    from slm.bundled import bundled_slms, find_slm
    from slm.configuration import ModelConfig
    from slm.documents import Document, DocumentConfig, Documents
    from slm.merging import merge
    from slm.samples_config import SamplesConfig
    from slm.sampling import SamplingConfig
    from slm.speech_lm import SpeechLM
    from slm.speech_stream import SpeechChunk, SpeechStream
    from slm.spoken import (
        Prompt,
        SpeakingProgress,
        SpeechRequest,
        SpokenResult,
        SpokenSpan,
        TranscribedResult,
    )
    from slm.start_config import StartConfig, TuningConfig
    from slm.training import TrainingResult, train_slm
    from slm.training_config import BatchConfig, DatasetConfig, OptimizerConfig, SLMTrainingConfig
    from slm.training_data import TrainingData, open_training_data
    from slm.vocabulary import Vocabulary

# by module, imported when first asked for: torch and transformers take seconds that `--help` should not
_PUBLIC = {
    "slm.bounds": ["SpeechBounds"],
    "slm.bundled": ["bundled_slms", "find_slm"],
    "slm.configuration": ["ModelConfig"],
    "slm.documents": ["Document", "DocumentConfig", "Documents"],
    "slm.merging": ["merge"],
    "slm.samples_config": ["SamplesConfig"],
    "slm.sampling": ["SamplingConfig"],
    "slm.speech_lm": ["SpeechLM"],
    "slm.speech_stream": ["SpeechChunk", "SpeechStream"],
    "slm.spoken": [
        "Prompt",
        "SpeakingProgress",
        "SpeechRequest",
        "SpokenResult",
        "SpokenSpan",
        "TranscribedResult",
    ],
    "slm.start_config": ["StartConfig", "TuningConfig"],
    "slm.training": ["TrainingResult", "train_slm"],
    "slm.training_config": ["BatchConfig", "DatasetConfig", "OptimizerConfig", "SLMTrainingConfig"],
    "slm.training_data": ["TrainingData", "open_training_data"],
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
