"""Everything that decides a language model training run."""

from dataclasses import dataclass, field
from typing import Literal

from codec.runs import Schedule, UserError
from slm.configuration import ModelConfig
from slm.documents import DocumentConfig


@dataclass
class DatasetConfig:
    """One token dataset of the mixture.

    `weight` is its share of the tokens trained on, in proportion to the other datasets' weights (all or none have
    one; without, every row comes once an epoch); `decay_weight` the same while the learning rate falls (unset:
    `weight`). `voice` names the voice of rows that have no speaker.
    """

    path: str
    weight: float | None = None
    decay_weight: float | None = None
    voice: str | None = None

    def __post_init__(self) -> None:
        if min(self.weight or 0, self.decay_weight or 0) < 0:
            raise UserError(f"the weights of dataset {self.path} must be 0 or more")


@dataclass
class BatchConfig:
    """What one update is computed from: `blocks` rows of `length` tokens, over all processes together.

    A process takes `blocks_per_forward` of them at a time; memory needs decide this, the result does not change.
    """

    length: int = 2048
    blocks: int = 8
    blocks_per_forward: int = 8

    def __post_init__(self) -> None:
        if self.length < 2 or self.blocks < 1 or self.blocks_per_forward < 1:
            raise UserError(
                "batch.length must be at least 2, batch.blocks and batch.blocks_per_forward at least 1"
            )


@dataclass
class OptimizerConfig:
    """AdamW; weight decay is for matrices only, so never for norms."""

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0  # of the whole gradient; 0: none

    def __post_init__(self) -> None:
        self.betas = (float(self.betas[0]), float(self.betas[1]))


@dataclass
class SLMTrainingConfig:
    """A training run of `codec-slm train-slm`.

    The run ends after `max_steps` updates or `max_seconds`, whichever comes first. With `max_seconds` the schedule
    follows the clock, so that the decay fits in; such a run goes on after a kill, but not bit for bit.
    """

    datasets: list[DatasetConfig]
    text_model: str  # a SentencePiece .model, or a pretrained fast tokenizer
    output: str
    codec: str | None = (
        None  # where the datasets' codec is: directory, hub id or bundled name; for its codebook
    )
    voices: list[str] | None = None  # speakers that get a voice tag; unset: all speakers of the datasets
    max_quantizers: int | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    documents: DocumentConfig = field(default_factory=DocumentConfig)
    decay_documents: DocumentConfig | None = None  # unset: `documents`
    batch: BatchConfig = field(default_factory=BatchConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: Schedule = field(default_factory=lambda: Schedule(warmup_steps=100))
    max_steps: int | None = None
    max_seconds: float | None = None
    # auto: bfloat16 where the device multiplies it faster than float32. float64 is for checking arithmetic.
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    # auto: each document by itself on a CPU, masked blocks elsewhere; or what transformers knows:
    # sdpa, eager, flash_attention_2, flex_attention.
    attention: str = "auto"
    compile: bool = False
    ema: float = 0.0  # decay of an average of the weights, which is then validated and saved; 0: none
    workers: int = 0  # processes that build blocks ahead
    log_every: int = 20
    validate_every: int = 250
    validation_blocks: int = 64  # of each dataset, at most
    checkpoint_every: int = 250
    keep_last: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.datasets:
            raise UserError("datasets is empty: give at least one token dataset to train on")
        if self.max_steps is None and self.max_seconds is None:
            raise UserError("give max_steps, max_seconds, or both: when should training end?")
        for name in ("max_steps", "max_seconds", "log_every", "validate_every", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"{name} is {value}: it must be above 0")
        if self.batch.length > self.model.max_positions:
            raise UserError(
                f"batch.length {self.batch.length} is more than model.max_positions {self.model.max_positions}: "
                "no document may be longer than what the model can read"
            )
        if not 0 <= self.ema < 1:
            raise UserError(f"ema is {self.ema}: a decay from 0 (none) to below 1")
        if self.decay_changes_data and self.schedule.kind != "warmup-stable-decay":
            raise UserError(
                f"a mixture for the decay needs schedule.kind warmup-stable-decay, not {self.schedule.kind}"
            )
        if self.workers < 0:
            raise UserError(f"workers is {self.workers}: 0 or more")

    def weights(self, decay: bool) -> list[float | None]:
        """The datasets' shares in one phase of the run."""
        return [
            entry.decay_weight if decay and entry.decay_weight is not None else entry.weight
            for entry in self.datasets
        ]

    @property
    def decay_changes_data(self) -> bool:
        """Whether the decay trains on other documents than what came before."""
        return self.weights(True) != self.weights(False) or self.decay_documents is not None
