"""What a codec training run is told."""

from dataclasses import dataclass, field
from typing import Any, Literal

from codec.configuration import PARTS
from codec.foundation import Schedule, UserError
from codec.losses.discriminators import DISCRIMINATORS
from codec.losses.reconstruction import LossWeights
from codec.training.overrides import overridden


@dataclass
class OptimizerConfig:
    """AdamW. Gradients are clipped far above their usual size: the losses carry weights of 45 and 1,000."""

    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.5, 0.9)
    weight_decay: float = 0.0
    clip_norm: float = 100.0


@dataclass
class Stage:
    """A stretch of training in which the same parts learn by the same losses; its optimizers start afresh.

    discriminator_optimizer, discriminator_schedule: those of the discriminators, which learn beside the codec in a
        stage whose losses name some; as the codec's when unset.
    judged_seconds: they see a stretch of so much of each segment, drawn anew each step; all of it when unset.
    """

    steps: int = 100_000
    train: list[str] = field(default_factory=lambda: ["encoder", "quantizer", "decoder"])
    vocoder_input: Literal["decoder", "recording"] = "decoder"  # what mel the vocoder hears while it trains
    losses: LossWeights = field(default_factory=LossWeights)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: Schedule = field(default_factory=lambda: Schedule(kind="constant"))
    discriminator_optimizer: OptimizerConfig | None = None
    discriminator_schedule: Schedule | None = None
    judged_seconds: float | None = None
    segment_seconds: float = 2.0
    batch_size: int = 16  # segments, of one process and one accumulation step

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or self.segment_seconds <= 0:
            raise UserError(
                f"a stage has steps {self.steps}, batch_size {self.batch_size}, segment_seconds "
                f"{self.segment_seconds}: all must be above 0"
            )
        if unknown := sorted(set(self.train) - set(PARTS)):
            raise UserError(f"a stage trains {', '.join(unknown)}: the parts are {', '.join(PARTS)}")
        if not self.train:
            raise UserError(f"a stage trains nothing: name some of {', '.join(PARTS)} in its `train`")
        if idle := sorted(set(self.train) - self._reached()):
            raise UserError(
                f"a stage trains {', '.join(self.train)}, but none of its losses reaches {', '.join(idle)}: leave that "
                "out of `train`, or weigh a loss behind it (mel teaches encoder and decoder; vq encoder and quantizer; "
                "waveform_mel, multi_scale and discriminators encoder, decoder and vocoder, but after vocoder_input "
                "'recording' the vocoder alone)"
            )
        if unknown := sorted(set(self.losses.discriminators) - set(DISCRIMINATORS)):
            raise UserError(
                f"a stage has losses.discriminators {', '.join(unknown)}: there are {', '.join(DISCRIMINATORS)}"
            )
        if not self.losses.discriminators and (
            self.discriminator_optimizer or self.discriminator_schedule or self.judged_seconds is not None
        ):
            raise UserError(
                "a stage says how discriminators learn, but names none: give some a weight in losses.discriminators"
            )
        if self.judged_seconds is not None and not 0 < self.judged_seconds <= self.segment_seconds:
            raise UserError(
                f"judged_seconds is {self.judged_seconds}: above 0, at most segment_seconds, {self.segment_seconds}"
            )
        for name in ("distillation", "ctc"):
            if getattr(self.losses, name) > 0 and "encoder" not in self.train:
                raise UserError(
                    f"a stage with losses.{name} has to train the encoder: nothing else learns from it"
                )

    def _reached(self) -> set[str]:
        """The parts that some loss has a gradient for. (That of the codebook is in the VQ loss alone.)"""
        losses = self.losses
        if self.vocoder_input == "recording":
            return {"vocoder"} if losses.need_waveform else set()
        reached = set()
        if losses.vq > 0 and {"encoder", "quantizer"} & set(self.train):
            reached |= {"encoder", "quantizer"}
        if losses.mel > 0 or losses.need_waveform:
            reached |= {"encoder", "decoder"}
        if losses.need_waveform:
            reached |= {"vocoder"}
        if losses.distillation > 0 or losses.ctc > 0:
            reached |= {"encoder"}
        return reached


@dataclass
class CodecTrainingConfig:
    """A codec training run.

    model: preset name, or a directory with a config.json.
    model_overrides: fields of the model's config to replace, by part.
    stage_overrides: fields of every stage to replace, e.g. {"losses": {"distillation": 0}}.
    discriminators: fields of the discriminators' configurations to replace, by discriminator.
    initialize: start parts from other runs, exported or bundled codecs or imported vocoders, e.g.
        {"vocoder": "runs/vocoder"}; "all" names all.
    stages: one after the other; parts that a stage does not train are frozen.
    teacher: Hugging Face speech SSL model for the distillation loss.
    teacher_layer: the hidden state to distil from; unset averages all.
    teacher_loss: "cosine" along time as HH-Codec has it, or "l2" against standardised features as HybridCodec.
    ema_decay: the average of the weights that is evaluated and exported; 0 switches it off.
    precision: "bf16" runs all but quantizer, STFT and losses in bfloat16; "auto" does where the device is built for it.
    """

    output: str = "runs/codec"  # the run directory
    name: str | None = None  # the codec's own name; the preset's unless given
    model: str = "hh-codec-24hz-vocos"
    model_overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    discriminators: dict[str, dict[str, Any]] = field(default_factory=dict)
    initialize: dict[str, str] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=lambda: [Stage()])
    stage_overrides: dict[str, Any] = field(default_factory=dict)
    teacher: str | None = None
    teacher_layer: int | None = None
    teacher_loss: Literal["cosine", "l2"] = "cosine"
    accumulation_steps: int = 1  # batches of each process that make one update
    ema_decay: float = 0.999
    precision: Literal["auto", "no", "bf16"] = "auto"
    compile: bool = False  # the networks, with torch.compile: minutes at the start, faster steps on a GPU
    gradient_checkpointing: bool = False  # of a BigVGAN: a fraction of the memory, a third more time
    log_every: int = 20  # steps
    evaluate_every: int = 1_000  # steps
    checkpoint_every: int = 1_000  # steps
    keep_last: int = 2  # checkpoints, and the best of the last stage
    max_seconds: float | None = (
        None  # stop, with a checkpoint, after so much wall clock; the same command goes on
    )
    workers: int = 0  # processes that read segments; 0 reads in the training process
    seed: int = 0  # of the first weights, the segments and dropout

    def __post_init__(self) -> None:
        if not self.stages:
            raise UserError("a run needs at least one stage: give some as `stages`")
        self.stages = [overridden(stage, self.stage_overrides) for stage in self.stages]
        for name in ("accumulation_steps", "log_every", "evaluate_every", "checkpoint_every", "max_seconds"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"{name} is {value}: it must be above 0")
        if self.workers < 0:
            raise UserError(f"workers is {self.workers}: 0 or more")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay is {self.ema_decay}: a decay from 0 (none) to below 1")
        if idle := sorted(set(self.discriminators) - self.discriminator_names):
            raise UserError(
                f"discriminators.{idle[0]} is configured, but no stage gives it a weight in losses.discriminators"
            )
        distils = any(stage.losses.distillation > 0 for stage in self.stages)
        if distils and self.teacher is None:
            raise UserError(
                "a stage has losses.distillation, but there is no teacher: name a speech model as `teacher`"
            )
        if self.teacher is not None and not distils:
            raise UserError(
                "there is a teacher, but no stage gives losses.distillation a weight (published: 10)"
            )

    @property
    def reads_transcripts(self) -> bool:
        """Whether some stage learns from what is said."""
        return any(stage.losses.ctc > 0 for stage in self.stages)

    @property
    def discriminator_names(self) -> set[str]:
        """The discriminators that some stage trains."""
        return {name for stage in self.stages for name in stage.losses.discriminators}

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
