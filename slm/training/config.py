"""Settings of a language model training run."""

import math
import sys
from dataclasses import dataclass, field
from typing import Any, Literal

from codec.foundation import AdamWConfig, Schedule, UserError, check_skips
from slm.documents.config import DocumentConfig, TextDatasetConfig, ValidationConfig
from slm.models.config import ModelConfig, StartConfig, TuningConfig


@dataclass
class DatasetConfig:
    """One token dataset of the mixture."""

    path: str
    """A directory, or an address such as `hf://datasets/user/name` or `s3://bucket/name`. Shards at an
    address are fetched as they are needed, `window_shards` at a time, and few of them lie on the disk."""
    weight: float | None = None
    """Share of the tokens trained on, in proportion to the other datasets' weights: tokens of documents as
    their formats write them. All datasets have a weight or none; without, every row comes once an epoch."""
    decay_weight: float | None = None
    """The same while the learning rate falls; unset: `weight`."""
    voice: str | None = None
    """Voice of rows without a speaker."""
    max_epochs: float | None = None
    """Rows come no more often than this in the whole run. The other datasets fill what is then missing of
    this one's share."""

    def __post_init__(self) -> None:
        if min(self.weight or 0, self.decay_weight or 0) < 0:
            raise UserError(f"the weights of dataset {self.path} must be 0 or more")
        if self.max_epochs is not None and self.max_epochs <= 0:
            raise UserError(f"max_epochs of dataset {self.path} is {self.max_epochs}: it must be above 0")


@dataclass
class BatchConfig:
    """Size of one update: `blocks` rows of `length` tokens."""

    length: int = 2048
    """Tokens in a block. A row of text and speech that is longer is cut before words into rows that fit; without
    word times it is made of its speech alone. Speech or text alone is cut into pieces of this length."""
    blocks: int = 8
    """Blocks in an update, over all processes together."""
    blocks_per_forward: int = 8
    """Blocks that a process takes at a time. This decides the memory, not the result, except that dropout
    draws other masks; so it does with another number of processes."""

    def __post_init__(self) -> None:
        if self.length < 2 or self.blocks < 1 or self.blocks_per_forward < 1:
            raise UserError(
                "batch.length must be at least 2, batch.blocks and batch.blocks_per_forward at least 1"
            )


@dataclass
class OptimizerConfig(AdamWConfig):
    """AdamW, or Muon with AdamW. Weight decay is for matrices only, never for norms."""

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    eps: float = 1e-8
    """Added to the denominator."""
    muon: bool = False
    """The matrices of the decoder's layers are learnt by Muon (torch.optim.Muon), all else by AdamW. Muon
    multiplies in bfloat16, so runs on another number of processes agree to its rounding only."""
    skip_spikes: float = 0.0
    """Skip an update whose gradient norm is more than this many times the median of the last 100 norms; 0: skip
    none. 5 to 10 is usual."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.skip_spikes and self.skip_spikes <= 1:
            raise UserError(f"optimizer.skip_spikes is {self.skip_spikes}: 0 (never), or above 1")


@dataclass
class SamplesConfig:
    """Speech that the model makes at every evaluation, in `samples/` of the run directory and in TensorBoard.

    It reads texts aloud where the documents teach that, and continues validation recordings.
    """

    count: int = 2
    """Samples of each kind; 0: none."""
    texts: list[str] = field(default_factory=list)
    """Texts to read aloud; empty: those of validation recordings."""
    prompt_seconds: float = 3.0
    """Length of the prompt: the beginning of a recording."""
    seconds: float = 5.0
    """Longest continuation."""

    def __post_init__(self) -> None:
        if self.count < 0 or self.prompt_seconds <= 0 or self.seconds <= 0:
            raise UserError("samples.count is 0 or more, samples.prompt_seconds and samples.seconds above 0")


@dataclass(frozen=True)
class RunLength:
    """A run ends at the first of its limits; None is no limit.

    With updates or tokens the total is known from the start, so the schedule does not depend on interruptions. With
    seconds it is estimated from the pace so far.
    """

    max_steps: int | None
    max_tokens: int | None
    max_seconds: float | None
    tokens_per_step: int

    @property
    def known_steps(self) -> int | None:
        """Updates that the limits allow at any pace; None if only the clock decides."""
        limits = [] if self.max_steps is None else [self.max_steps]
        if self.max_tokens is not None:
            limits.append(math.ceil(self.max_tokens / self.tokens_per_step))
        return min(limits, default=None)

    def is_over(self, step: int, seconds: float) -> bool:
        """Whether a run ends after `step` updates in `seconds`."""
        known = self.known_steps
        return (known is not None and step >= known) or (
            self.max_seconds is not None and seconds >= self.max_seconds
        )

    def total_steps(self, step: int, seconds: float) -> int:
        """Updates of the whole run, estimated after `step` of them; at least one more."""
        known = self.known_steps
        totals = [] if known is None else [known]
        if self.max_seconds is not None:
            pace = seconds / step if step else 0.0
            totals.append(math.ceil(self.max_seconds / pace) if pace else sys.maxsize)
        return max(step + 1, min(totals))


@dataclass
class SLMTrainingConfig:
    """A training run of `codec-slm train-slm`.

    The run ends after `max_steps` updates, `max_tokens` or `max_seconds`, whichever comes first. With `max_seconds`
    the schedule follows the clock, so that the decay fits in; such a run goes on after a kill, but not bit for bit.
    """

    datasets: list[DatasetConfig]
    """Token datasets."""
    output: str
    """The run directory."""
    text_model: str | None = None
    """A SentencePiece .model, or a pretrained fast tokenizer."""
    start_from: StartConfig | None = None
    """A pretrained model to start from; it brings its own text model."""
    codec: str | None = None
    """The datasets' codec, for its codebook: directory, hub id or bundled name."""
    voices: list[str] | None = None
    """Speakers that get a voice tag; unset: all speakers of the datasets."""
    max_quantizers: int | None = None
    """Use the codes of this many first quantizers; unset: of all."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Shape of a new model."""
    texts: list[TextDatasetConfig] = field(default_factory=list)
    """Datasets of text alone, so that the model keeps its language."""
    validation: dict[str, ValidationConfig] | None = None
    """What to validate on, by the name that logs use; unset: the validation split of each token dataset."""
    documents: DocumentConfig = field(default_factory=DocumentConfig)
    """Training documents."""
    decay_documents: DocumentConfig | None = None
    """Training documents while the learning rate falls; unset: `documents`."""
    batch: BatchConfig = field(default_factory=BatchConfig)
    """Size of an update."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer."""
    schedule: Schedule = field(default_factory=lambda: Schedule(warmup_steps=100))
    """Learning rate schedule."""
    tuning: TuningConfig = field(default_factory=TuningConfig)
    """Which weights learn."""
    max_steps: int | None = None
    """End after this many updates."""
    max_tokens: int | None = None
    """End after this many tokens, counted as places in blocks."""
    max_seconds: float | None = None
    """End after this much wall-clock time; the schedule follows the clock."""
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    """auto: bfloat16 where the device multiplies it faster than float32. float64 is for checking
    arithmetic."""
    attention: str = "auto"
    """auto: each document by itself on a CPU, masked blocks elsewhere. Or an implementation of
    transformers: sdpa, eager, flash_attention_2, flex_attention."""
    sharding: Literal["auto", "none", "full"] = "auto"
    """Share weights, gradients and optimizer state out over the processes (FSDP2). auto: as accelerate is
    configured."""
    activation_checkpointing: bool = False
    """Compute the decoder's forward pass twice rather than keep it."""
    logits_mib: float = 512.0
    """Logits that would take more memory are made and used in chunks; for large vocabularies."""
    z_loss: float = 0.0
    """Weight of the squared logarithm of the softmax's denominator in the training loss (PaLM, arXiv 2204.02311,
    section 5: 1e-4); it keeps logits small. `train/loss` has it, validation has not."""
    compile: bool = False
    """Compile the model with torch.compile."""
    ema: float = 0.0
    """Decay of the weight average that is validated and saved; 0: no average."""
    workers: int = 0
    """Processes that build blocks ahead."""
    window_shards: int = 8
    """Shards of a dataset at an address that are shuffled together and lie on the disk at a time."""
    log_every: int = 20
    """Steps between two lines of the log."""
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])
    """tensorboard writes into the run directory; others by the name that accelerate knows: wandb, trackio,
    mlflow, ..."""
    tracker_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Arguments that start each tracker, by its name."""
    peak_tflops: float | None = None
    """Peak of one device, for the MFU; unset: from its data sheet, else measured."""
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    """Speech that is made at every evaluation."""
    validate_every: int = 250
    """Steps between two validations."""
    validation_blocks: int = 64
    """Most validation blocks of each dataset."""
    checkpoint_every: int = 250
    """Steps between two checkpoints."""
    keep_last: int = 2
    """Checkpoints to keep."""
    skip_data: dict[int, int] = field(default_factory=dict)
    """After these steps, the data of so many steps are left out: {1000: 50}. A run that has gone further goes
    back to its last checkpoint at or before the step, keeps the optimizer state, and drops later checkpoints.
    For going on before a spike of the loss."""
    seed: int = 0
    """Seed of weights, documents and dropout."""

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
        check_skips(self.skip_data)
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
        """Whether a dataset is at an address, and read as it is needed."""
        return any("://" in entry.path for entry in self.datasets)

    @property
    def sources(self) -> list[DatasetConfig | TextDatasetConfig]:
        """All training datasets: token datasets, then texts."""
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
        """Whether the decay trains on other documents than the steps before."""
        return self.weights(True) != self.weights(False) or self.decay_documents is not None
