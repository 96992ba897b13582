"""What a codec training run is told."""

from dataclasses import dataclass, field
from typing import Any, Literal

from codec.losses import LossWeights
from codec.runs import Schedule


@dataclass
class OptimizerConfig:
    """AdamW. Gradients are clipped far above their usual size: the losses carry weights of 45 and 1,000."""

    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.5, 0.9)
    weight_decay: float = 0.0
    clip_norm: float = 100.0


@dataclass
class Stage:
    """A stretch of training in which the same parts learn by the same losses; its optimizer starts afresh."""

    steps: int = 100_000
    train: list[str] = field(default_factory=lambda: ["encoder", "quantizer", "decoder"])
    vocoder_input: Literal["decoder", "recording"] = "decoder"  # what mel the vocoder hears while it trains
    losses: LossWeights = field(default_factory=LossWeights)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: Schedule = field(default_factory=lambda: Schedule(kind="constant"))
    segment_seconds: float = 2.0
    batch_size: int = 16  # segments, of one process and one accumulation step


@dataclass
class CodecTrainingConfig:
    """A codec training run.

    model: preset name, or a directory with a config.json.
    model_overrides: fields of the model's config to replace, by part.
    initialize: start parts from other runs or exported codecs, e.g. {"vocoder": "runs/vocoder/final"}; "all" names all.
    stages: one after the other; parts that a stage does not train are frozen.
    teacher: Hugging Face speech SSL model for the distillation loss; teacher_layer null averages all layers.
    ema_decay: the average of the weights that is evaluated and exported; 0 switches it off.
    precision: "bf16" runs everything but quantizer, STFT and losses in bfloat16; "auto" does where the device is built for it.
    """

    output: str = "runs/codec"
    name: str | None = None  # the codec's own name; the preset's unless given
    model: str = "hh-codec-24hz-vocos"
    model_overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    initialize: dict[str, str] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=lambda: [Stage()])
    teacher: str | None = None
    teacher_layer: int | None = None
    accumulation_steps: int = 1
    ema_decay: float = 0.999
    precision: Literal["auto", "no", "bf16"] = "auto"
    log_every: int = 20
    evaluate_every: int = 1_000
    checkpoint_every: int = 1_000
    keep_last: int = 2
    max_seconds: float | None = (
        None  # stop, with a checkpoint, after so much wall clock; the same command goes on
    )
    workers: int = 0  # processes that read segments; 0 reads in the training process
    seed: int = 0

    @property
    def total_steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.steps for stage in self.stages)

    def stage_of(self, step: int) -> tuple[int, int]:
        """(index of the stage that does step `step`, steps done in it before)."""
        for index, stage in enumerate(self.stages):
            if step < stage.steps:
                return index, step
            step -= stage.steps
        return len(self.stages) - 1, self.stages[-1].steps
