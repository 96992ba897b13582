"""What `codec-slm train-codec` and `train-recogniser` are told: a training run and its corpora."""

from dataclasses import dataclass, field, replace

from codec.foundation.errors import UserError
from codec.training.config import CodecTrainingConfig
from data.config import Augmentation, CorpusFormat, CorpusOptions


@dataclass
class CodecCorpus:
    """A corpus that a codec learns from."""

    path: str
    """Where the recordings are."""
    weight: float = 1.0
    """Share of the training segments, relative to the other corpora's."""
    format: CorpusFormat = "auto"
    """Layout of the corpus."""
    reading: CorpusOptions | None = None
    """What to take from it; unset: as the flags of the command say."""
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


def read_as(corpora: list[CodecCorpus], reading: CorpusOptions) -> list[CodecCorpus]:
    """The corpora, with this for all that do not say how to read them."""
    if reading == CorpusOptions():
        return corpora
    return [replace(corpus, reading=corpus.reading or reading) for corpus in corpora]


@dataclass
class CodecRecipe(CodecTrainingConfig):
    """A codec training run and its corpora."""

    corpora: list[CodecCorpus] = field(default_factory=list)
    """What to train and validate on."""
    preload: bool = True
    """Decode all audio into memory first (16 bits a sample: 170 MB an hour)."""


@dataclass
class RecogniserRecipe:
    """The training of a small recogniser that listens while codecs train (losses.recogniser), and its corpora."""

    output: str = "runs/recogniser"
    """The run directory; the recogniser comes to its folder `final`."""
    corpora: list[CodecCorpus] = field(default_factory=list)
    """What to train and validate on; their words need times (codec-slm align)."""
    preload: bool = True
    """Decode all audio into memory first (16 bits a sample: 170 MB an hour)."""
    model: str = "hh-codec-24hz-vocos"
    """Preset or directory of a codec whose mel the recogniser is to hear."""
    dim: int = 160
    """Width."""
    blocks: int = 6
    """ConvNeXt blocks."""
    steps: int = 8_000
    """Updates."""
    batch_size: int = 16
    """Segments of one process."""
    segment_seconds: float = 3.0
    """Length of a training segment."""
    learning_rate: float = 1e-3
    """Of AdamW, with warm-up and linear decay to 0."""
    checkpoint_every: int = 1_000
    """Steps between two checkpoints; the same command goes on from the last."""
    workers: int = 0
    """Processes that read segments; 0: the training process reads them."""
    seed: int = 0
    """Seed of the first weights and the segments."""

    def __post_init__(self) -> None:
        for name in ("dim", "blocks", "steps", "batch_size", "segment_seconds", "checkpoint_every"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} is {getattr(self, name)}: it must be above 0")
