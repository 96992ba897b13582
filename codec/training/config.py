"""Settings of a codec training run."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from codec.foundation import AdamWConfig, Schedule, UserError, check_skips
from codec.losses.config import DISCRIMINATOR_CONFIGS, LossWeights
from codec.presets import PARTS

Config = TypeVar("Config")


@dataclass
class OptimizerConfig(AdamWConfig):
    """AdamW. Gradients are clipped far above their usual size: the losses carry weights of 45 and 1,000."""

    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.5, 0.9)
    weight_decay: float = 0.0
    clip_norm: float = 100.0


@dataclass
class Stage:
    """A stretch of training in which the same parts learn by the same losses; its optimizers start afresh."""

    steps: int = 100_000
    """Updates of this stage."""
    train: list[str] = field(default_factory=lambda: ["encoder", "quantizer", "decoder"])
    """Parts that learn: encoder, quantizer, decoder, vocoder. The others are frozen."""
    vocoder_input: Literal["decoder", "recording"] = "decoder"
    """The mel that the vocoder hears while it trains: the decoder's or the recording's own."""
    losses: LossWeights = field(default_factory=LossWeights)
    """Weight of each loss."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer of the codec."""
    schedule: Schedule = field(default_factory=lambda: Schedule(kind="constant"))
    """Learning rate schedule of the codec."""
    discriminator_optimizer: OptimizerConfig | None = None
    """Optimizer of the discriminators; unset: as the codec's."""
    discriminator_schedule: Schedule | None = None
    """Learning rate schedule of the discriminators; unset: as the codec's."""
    judged_seconds: float | None = None
    """The discriminators get a stretch of this length of each segment's audio and mel, drawn anew each step; unset:
    all of it."""
    segment_seconds: float = 2.0
    """Length of a training segment."""
    batch_size: int = 16
    """Segments of one process and one accumulation step."""

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
        if idle := sorted(set(self.train) - self._parts_with_gradient()):
            raise UserError(
                f"a stage trains {', '.join(self.train)}, but none of its losses reaches {', '.join(idle)}: leave that "
                "out of `train`, or weigh a loss behind it (mel and recogniser teach encoder and decoder; vq "
                "encoder and quantizer; "
                "waveform_mel, multi_scale, multi_scale_mel and discriminators encoder, decoder and vocoder, but after "
                "vocoder_input 'recording' the vocoder alone)"
            )
        if unknown := sorted(set(self.losses.discriminators) - set(DISCRIMINATOR_CONFIGS)):
            raise UserError(
                f"a stage has losses.discriminators {', '.join(unknown)}: there are {', '.join(DISCRIMINATOR_CONFIGS)}"
            )
        if "mel" in self.losses.discriminators and self.vocoder_input == "recording":
            raise UserError(
                "vocoder_input is 'recording', so there is no mel for the discriminator mel to judge"
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

    def _parts_with_gradient(self) -> set[str]:
        """The parts that get a gradient from some loss. (The codebook gets one from the VQ loss alone.)"""
        losses = self.losses
        if self.vocoder_input == "recording":
            return {"vocoder"} if losses.need_waveform else set()
        parts = set()
        if losses.vq > 0 and {"encoder", "quantizer"} & set(self.train):
            parts |= {"encoder", "quantizer"}
        if losses.mel > 0 or losses.recogniser > 0 or losses.discriminators or losses.need_waveform:
            parts |= {"encoder", "decoder"}
        if losses.need_waveform:
            parts |= {"vocoder"}
        if losses.distillation > 0 or losses.ctc > 0:
            parts |= {"encoder"}
        return parts


@dataclass
class CodecTrainingConfig:
    """A codec training run."""

    output: str = "runs/codec"
    """The run directory."""
    name: str | None = None
    """The codec's own name; unset: the preset's."""
    model: str = "hh-codec-24hz-vocos"
    """Name of a preset, or a directory with a config.json."""
    model_overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Fields of the model's config to replace, by part."""
    discriminators: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Fields of the discriminators' configurations to replace, by discriminator."""
    initialize: dict[str, str] = field(default_factory=dict)
    """Parts to start from other runs, exported or bundled codecs, or imported vocoders, e.g. {"vocoder":
    "runs/vocoder"}; "all" names all parts."""
    stages: list[Stage] = field(default_factory=lambda: [Stage()])
    """One after the other."""
    stage_overrides: dict[str, Any] = field(default_factory=dict)
    """Fields to replace in every stage, e.g. {"losses": {"distillation": 0}}."""
    teacher: str | None = None
    """Hugging Face speech SSL model for the distillation loss."""
    teacher_layer: int | None = None
    """Hidden state to distil from (0: what the first layer gets; n: what layer n gives); unset: the average of all."""
    teacher_loss: Literal["cosine", "l2"] = "cosine"
    """"cosine": along time, as in HH-Codec; "l2": against standardised features, as in HybridCodec; directly where
    the stream is as wide as the teacher, through a linear map where it is not."""
    recogniser: str | None = None
    """Directory of a recogniser for losses.recogniser, made by codec-slm train-recogniser."""
    accumulation_steps: int = 1
    """Batches of each process that make one update."""
    ema_decay: float = 0.999
    """Decay of the weight average that is evaluated and exported; 0: no average."""
    precision: Literal["auto", "no", "bf16"] = "auto"
    """"bf16" runs all but quantizer, STFT and losses in bfloat16; "auto" does so where the device is built
    for it."""
    compile: bool = False
    """Compile the networks with torch.compile: minutes at the start, faster steps on a GPU."""
    gradient_checkpointing: bool = False
    """Recompute a BigVGAN's activations: a fraction of the memory, a third more time."""
    log_every: int = 20
    """Steps between two lines of the log."""
    least_perplexity: float = 0.01
    """Say so when the perplexity of the first quantizer's codes, between two lines of the log, falls below
    this share of its codebook; 0: never."""
    evaluate_every: int = 1_000
    """Steps between two validations."""
    checkpoint_every: int = 1_000
    """Steps between two checkpoints."""
    keep_last: int = 2
    """Checkpoints to keep beside the best of the last stage."""
    max_seconds: float | None = None
    """Stop with a checkpoint after this much wall-clock time; the same command goes on from it."""
    workers: int = 0
    """Processes that read segments; 0: the training process reads them."""
    skip_data: dict[int, int] = field(default_factory=dict)
    """After these steps of the run, the data of so many steps are left out: {1000: 50}. A run that has gone
    further goes back to its last checkpoint at or before the step, keeps the optimizer state, and drops later
    checkpoints."""
    seed: int = 0
    """Seed of the first weights, the segments and dropout."""

    def __post_init__(self) -> None:
        if not self.stages:
            raise UserError("a run needs at least one stage: give some as `stages`")
        self.stages = [overridden(stage, self.stage_overrides) for stage in self.stages]
        for name in ("accumulation_steps", "log_every", "evaluate_every", "checkpoint_every", "max_seconds"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"{name} is {value}: it must be above 0")
        check_skips(self.skip_data)
        if self.workers < 0:
            raise UserError(f"workers is {self.workers}: 0 or more")
        if not 0 <= self.least_perplexity <= 1:
            raise UserError(
                f"least_perplexity is {self.least_perplexity}: a share of the codebook, from 0 to 1"
            )
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
        listens = any(stage.losses.recogniser > 0 for stage in self.stages)
        if listens != (self.recogniser is not None):
            raise UserError(
                "losses.recogniser of a stage and the `recogniser` of the run go together: give both, or none"
            )

    @property
    def reads_transcripts(self) -> bool:
        """Whether some stage learns from transcripts."""
        return any(stage.losses.ctc > 0 for stage in self.stages)

    @property
    def discriminator_names(self) -> set[str]:
        """The discriminators that some stage trains."""
        return {name for stage in self.stages for name in stage.losses.discriminators}

    @property
    def total_steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.steps for stage in self.stages)

    def batches_of(self, index: int, done: int) -> Iterator[int]:
        """Numbers of the batches of a stage after `done` updates of it; those of `skip_data` are not there."""
        begin = sum(stage.steps for stage in self.stages[:index])
        for step in range(done, self.stages[index].steps):
            first = step + sum(count for at, count in self.skip_data.items() if begin <= at <= begin + step)
            yield from range(first * self.accumulation_steps, (first + 1) * self.accumulation_steps)

    def stage_of(self, step: int) -> tuple[int, int]:
        """(index of the stage that does step `step`, steps done in it before)."""
        for index, stage in enumerate(self.stages):
            if step < stage.steps:
                return index, step
            step -= stage.steps
        return len(self.stages) - 1, self.stages[-1].steps


def overridden(config: Config, changes: Mapping[str, Any], path: str = "stage_overrides") -> Config:
    """A dataclass with the named fields replaced; in nested dataclasses field by field.

    Raises UserError for a field that does not exist.
    """
    known = {field.name for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    replaced = {}
    for name, value in changes.items():
        if name not in known:
            raise UserError(f"{path} names {name!r}: the fields there are {', '.join(sorted(known))}")
        present = getattr(config, name)
        if isinstance(value, Mapping) and dataclasses.is_dataclass(present):
            value = overridden(present, value, f"{path}.{name}")
        elif isinstance(value, Mapping) and present is None:
            raise UserError(f"{path}.{name}: no stage has it yet, so give it to the stages themselves")
        replaced[name] = value
    return dataclasses.replace(config, **replaced)  # type: ignore[type-var]
