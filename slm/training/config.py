"""Everything that decides a language model training run."""

from dataclasses import dataclass, field
from typing import Any, Literal

from codec.foundation import Schedule, UserError
from slm.documents import DocumentConfig
from slm.models.configuration import ModelConfig
from slm.models.start_config import StartConfig, TuningConfig
from slm.text.config import TextDatasetConfig, ValidationConfig
from slm.training.run_length import RunLength
from slm.training.samples_config import SamplesConfig


@dataclass
class DatasetConfig:
    """One token dataset of the mixture.

    `path` is a directory, or an address such as `hf://datasets/user/name` or `s3://bucket/name`: then shards are
    fetched as they are needed, `window_shards` at a time, and few of them lie on the disk.

    `weight` is its share of the tokens trained on, in proportion to the other datasets' weights (all or none have
    one; without, every row comes once an epoch); `decay_weight` the same while the learning rate falls (unset:
    `weight`). With `max_epochs` its rows come no more often than that in the whole run, and what it then cannot give
    of its share the others do. `voice` names the voice of rows that have no speaker.
    """

    path: str
    weight: float | None = None
    decay_weight: float | None = None
    voice: str | None = None
    max_epochs: float | None = None

    def __post_init__(self) -> None:
        if min(self.weight or 0, self.decay_weight or 0) < 0:
            raise UserError(f"the weights of dataset {self.path} must be 0 or more")
        if self.max_epochs is not None and self.max_epochs <= 0:
            raise UserError(f"max_epochs of dataset {self.path} is {self.max_epochs}: it must be above 0")


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

    The run ends after `max_steps` updates, `max_tokens` or `max_seconds`, whichever comes first. With `max_seconds`
    the schedule follows the clock, so that the decay fits in; such a run goes on after a kill, but not bit for bit.
    """

    datasets: list[DatasetConfig]
    output: str
    text_model: str | None = None  # a SentencePiece .model, or a pretrained fast tokenizer
    start_from: StartConfig | None = None  # a pretrained model to go on from; it brings its own text model
    codec: str | None = (
        None  # where the datasets' codec is: directory, hub id or bundled name; for its codebook
    )
    voices: list[str] | None = None  # speakers that get a voice tag; unset: all speakers of the datasets
    max_quantizers: int | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    texts: list[TextDatasetConfig] = field(
        default_factory=list
    )  # text alone, so that the model keeps its language
    # What to validate on, by the name that logs call it; unset: the validation split of each token dataset.
    validation: dict[str, ValidationConfig] | None = None
    documents: DocumentConfig = field(default_factory=DocumentConfig)
    decay_documents: DocumentConfig | None = None  # unset: `documents`
    batch: BatchConfig = field(default_factory=BatchConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: Schedule = field(default_factory=lambda: Schedule(warmup_steps=100))
    tuning: TuningConfig = field(default_factory=TuningConfig)
    # The run ends with the first of these; tokens are counted as places in blocks.
    max_steps: int | None = None
    max_tokens: int | None = None
    max_seconds: float | None = None
    # auto: bfloat16 where the device multiplies it faster than float32. float64 is for checking arithmetic.
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    # auto: each document by itself on a CPU, masked blocks elsewhere; or what transformers knows:
    # sdpa, eager, flash_attention_2, flex_attention.
    attention: str = "auto"
    # Weights, gradients and optimizer state shared out over the processes (FSDP2). auto: as accelerate is configured.
    sharding: Literal["auto", "none", "full"] = "auto"
    activation_checkpointing: bool = False  # compute the decoder's forward pass twice rather than keep it
    logits_mib: float = (
        512.0  # logits that would take more are made and used in chunks: for large vocabularies
    )
    compile: bool = False
    ema: float = 0.0  # decay of an average of the weights, which is then validated and saved; 0: none
    workers: int = 0  # processes that build blocks ahead
    window_shards: int = 8  # of a dataset at an address: shuffled together, and on the disk at a time
    log_every: int = 20
    # tensorboard is the run directory's; others by the name that accelerate knows: wandb, trackio, mlflow, ...
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])
    tracker_options: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # what each is begun with, by its name
    peak_tflops: float | None = None  # of one device, for the MFU; unset: its data sheet's, else measured
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    validate_every: int = 250
    validation_blocks: int = 64  # of each dataset, at most
    checkpoint_every: int = 250
    keep_last: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.datasets:
            raise UserError("datasets is empty: give at least one token dataset to train on")
        if self.max_steps is None and self.max_tokens is None and self.max_seconds is None:
            raise UserError(
                "give max_steps, max_tokens or max_seconds, or several: when should training end?"
            )
        for name in (
            "max_steps", "max_tokens", "max_seconds", "log_every", "validate_every", "checkpoint_every",
            "logits_mib", "peak_tflops",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"{name} is {value}: it must be above 0")
        if (self.text_model is None) == (self.start_from is None):
            raise UserError(
                "give text_model (a text tokenizer for a new model) or start_from (a pretrained model with its own), "
                "one of the two"
            )
        if self.start_from is None and self.batch.length > self.model.max_positions:
            raise UserError(
                f"batch.length {self.batch.length} is more than model.max_positions {self.model.max_positions}: "
                "no document may be longer than what the model can read"
            )
        if self.run_length.known_steps is None and any(e.max_epochs is not None for e in self.sources):
            raise UserError(
                "max_epochs of a dataset needs max_steps or max_tokens: how often rows come depends on a run's length"
            )
        if self.window_shards < 1:
            raise UserError(f"window_shards is {self.window_shards}: at least 1")
        if self.streams and any(entry.max_epochs is not None for entry in self.sources):
            raise UserError(
                "max_epochs needs all datasets on the disk: their rows are not known beforehand otherwise"
            )
        if self.streams and self.voices is None:
            raise UserError(
                "give voices (speakers that get a tag, or []): a streamed dataset does not list its own"
            )
        if self.tuning.mode != "full" and self.start_from is None:
            raise UserError(
                f"tuning.mode {self.tuning.mode} trains a part of a pretrained model: give start_from"
            )
        if not 0 <= self.ema < 1:
            raise UserError(f"ema is {self.ema}: a decay from 0 (none) to below 1")
        if self.decay_changes_data and self.schedule.kind != "warmup-stable-decay":
            raise UserError(
                f"a mixture for the decay needs schedule.kind warmup-stable-decay, not {self.schedule.kind}"
            )
        if self.workers < 0:
            raise UserError(f"workers is {self.workers}: 0 or more")

    @property
    def streams(self) -> bool:
        """Whether a dataset is read from elsewhere as it is needed."""
        return any("://" in entry.path for entry in self.datasets)

    @property
    def sources(self) -> "list[DatasetConfig | TextDatasetConfig]":
        """All that is trained on: token datasets, then texts."""
        return [*self.datasets, *self.texts]

    @property
    def run_length(self) -> RunLength:
        """When the run ends."""
        tokens = self.batch.blocks * self.batch.length
        return RunLength(self.max_steps, self.max_tokens, self.max_seconds, tokens)

    def weights(self, decay: bool) -> list[float | None]:
        """The shares of `sources` in one phase of the run."""
        return [
            entry.decay_weight if decay and entry.decay_weight is not None else entry.weight
            for entry in self.sources
        ]

    def token_budget(self, decay: bool) -> int | None:
        """Tokens of one phase of the run, padding included; None for a run that the clock alone ends."""
        steps = self.run_length.known_steps
        if steps is None:
            return None
        if self.decay_changes_data:
            full = sum(
                self.schedule.factor(step, steps) == 1 for step in range(self.schedule.warmup_steps, steps)
            )
            stable = min(steps, self.schedule.warmup_steps) + full
            steps = steps - stable if decay else stable
        return steps * self.batch.blocks * self.batch.length

    @property
    def decay_changes_data(self) -> bool:
        """Whether the decay trains on other documents than what came before."""
        return self.weights(True) != self.weights(False) or self.decay_documents is not None
