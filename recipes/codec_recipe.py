"""What `codec-slm train-codec` is told: a training run and its corpora."""

from dataclasses import dataclass, field

from codec.training.config import CodecTrainingConfig
from data.config import Augmentation, CorpusFormat


@dataclass
class CodecCorpus:
    """A corpus that a codec learns from."""

    path: str
    """Where the recordings are."""
    weight: float = 1.0
    """Share of the training segments, relative to the other corpora's."""
    format: CorpusFormat = "auto"
    """Layout of the corpus."""
    alignment: str | None = None
    """Word times that `codec-slm align` made, for losses.ctc."""
    gain_db: tuple[float, float] | None = None
    """Range of the peak level drawn for training, in dB of full scale; unset: as recorded. (A random gain about the
    recorded level is an `augmentation`.)"""
    augmentation: Augmentation | None = None
    """Random changes of the training segments; none when unset."""
    validation_gain: float = 1.0
    """Factor on the validation recordings."""
    validation_limit: int = 60
    """Most validation recordings."""
    speaker_balance: float = 1.0
    """0: speakers come as often as they speak; 1: all equally often."""


@dataclass
class CodecRecipe(CodecTrainingConfig):
    """A codec training run and its corpora."""

    corpora: list[CodecCorpus] = field(default_factory=list)
    """What to train and validate on."""
    preload: bool = True
    """Decode all audio into memory first (16 bits a sample: 170 MB an hour)."""
