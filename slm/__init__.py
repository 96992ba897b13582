"""The language model over text and speech tokens: vocabulary, documents, training, generation.

In use:
    SpeechLM        a model with its vocabulary and codec: from_pretrained, speak, stream, continue_speech, transcribe
    SpeechRequest   a text to be spoken, and by whom
    Prompt          a recording to speak like, or to go on from; SpeechLM.prompt makes one
    SamplingConfig  how tokens are drawn
    SpeechBounds    limits on generated speech
    SpokenResult    generated speech: audio, codes, when which words are said (SpokenSpan)
    SpeechStream    speech while it is made; SpeechChunk: a piece of it, SpeakingProgress: how far it has come
    TranscribedResult  what a model heard
    bundled_slms    names of the models that come with the package
    find_slm        the directory of a model by name

In training:
    train_slm, SLMTrainingConfig  a run, and all that decides it
    Vocabulary      text, control and speech tokens; code <-> token id
    Documents, DocumentConfig, Document  training sequences of text and speech
    ModelConfig, StartConfig, TuningConfig, BatchConfig, OptimizerConfig, DatasetConfig, SamplesConfig  its parts
    TrainingData, open_training_data, TrainingResult  what it reads, and what comes of it
    merge           an adapter and its model to a plain checkpoint
"""

import importlib.util
from pathlib import Path

import lazy_loader

for _name in ("codec", "data"):  # a file of the user's may have the name of a package that this one stands on
    _found = importlib.util.find_spec(_name)
    if _found and _found.origin and Path(_found.origin).parents[1] != Path(__file__).parents[1]:
        raise ImportError(
            f"{_found.origin} hides the package '{_name}' of codec-slm: give that file another name"
        )

# The public names stand in __init__.pyi. Each is imported when first asked for: torch takes seconds.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
