"""The training loop of codecs: stages, average of weights, validation, checkpoints, resume."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from codec.base import CodecModel
from codec.foundation import (
    Progress,
    RunDirectory,
    StopSignal,
    Stopwatch,
    UserError,
    WeightAverage,
    checkpoint_step,
    make_accelerator,
    remove_directory,
    seed_globals,
    sum_over_processes,
    whole_directory,
)
from codec.foundation.quiet import quiet_transformers
from codec.losses.adversarial import Adversary
from codec.losses.discriminators import build_discriminators
from codec.losses.recogniser import RecogniserLoss
from codec.losses.semantic import FeatureRegression, SSLTeacher
from codec.nn.sequences import mask_from_lengths
from codec.training.batches import SegmentNumbers, TrainingData, collate, open_batches
from codec.training.checkpoint import Checkpoint, TrainedState, save_checkpoint
from codec.training.config import CodecTrainingConfig, Stage
from codec.training.initialization import build_model, compile_networks, uncompiled
from codec.training.step import CodecTrainingStep, SemanticObjectives
from codec.training.update import StageUpdate
from codec.training.validation import log_samples, perplexity, validate

# Fields that a resumed run may change: how fast it goes on learning, with what arithmetic, and what is watched. Corpora
# are known by what they list, wherever they lie.
_MAY_CHANGE = (
    "output", "max_seconds", "log_every", "evaluate_every", "checkpoint_every", "keep_last", "workers",
    "least_perplexity", "precision", "compile", "gradient_checkpointing", "skip_data", "stages.*.optimizer",
    "stages.*.schedule", "stages.*.discriminator_optimizer", "stages.*.discriminator_schedule", "corpora.*.path",
    "corpora.*.format", "corpora.*.alignment", "corpora.*.reading",
)  # fmt: skip
_CALIBRATION_SEGMENTS, _CALIBRATION_SECONDS = 16, 2.0
_MEASURED_SEGMENTS = 128  # for the statistics of the teacher's features


@dataclass
class TrainingResult:
    """Where a run stands when `train_codec` returns."""

    step: int
    finished: bool  # False: stopped by a signal or `max_seconds`; the same call goes on
    metrics: dict[str, float]  # of the last validation
    final: Path | None  # the model directory, once finished


def train_codec(config: CodecTrainingConfig, data: TrainingData) -> TrainingResult:
    """Train a codec as the config says. The same call resumes a killed or stopped run.

    The last stage of a run may be made longer or shorter, also when the run is finished. Runs under `accelerate launch`
    and torchrun. Raises UserError when the output directory holds a run of another config or other data.
    """
    with StopSignal() as stop:
        trainer = CodecTrainer(config, data, stop)
        try:
            return trainer.run()
        finally:
            trainer.directory.close()


class CodecTrainer:
    """One training run in progress."""

    def __init__(self, config: CodecTrainingConfig, data: TrainingData, stop: StopSignal):
        self.config, self.data, self.stop = config, data, stop
        self.started = time.monotonic()
        self.accelerator = make_accelerator(config.precision)
        device = self.accelerator.device
        seed_globals(config.seed, "weights")
        model = build_model(config)
        if model.config.exported and any(
            {"encoder", "quantizer"} & set(stage.train) for stage in config.stages
        ):
            raise UserError(
                f"{config.model} is an exported codec, whose codes are final: "
                "train its decoder and vocoder, or start from a training run"
            )
        teacher = None if config.teacher is None else SSLTeacher(config.teacher, config.teacher_layer, device)
        if config.reads_transcripts and not data.alphabet:
            raise UserError("a stage has losses.ctc, but the training data have no transcripts")
        recogniser = None if config.recogniser is None else RecogniserLoss(config.recogniser, device)
        objectives = SemanticObjectives(teacher, config.teacher_loss, len(data.alphabet), recogniser)
        self.step_module = CodecTrainingStep(model, objectives).to(device)
        self.average = self._new_average()
        self.adversary: Adversary | None = None
        if names := config.discriminator_names:
            discriminators = build_discriminators(names, config.discriminators, config.seed)
            self.adversary = Adversary(discriminators).to(device)
        if config.compile:
            compile_networks(self.step_module, self.adversary)
        # after everything that may refuse the config: a run that never began must not claim the directory
        self.directory = RunDirectory(config.output, config.keep_last, SummaryWriter)
        self.checkpoint: Checkpoint | None = None  # to go on from
        self._open_directory()
        self.step = 0
        self.seconds_before = 0.0  # wall clock of earlier starts of this run
        self.stage_index = -1
        self.update: StageUpdate | None = None  # of the present stage
        self.metrics: dict[str, float] = {}
        self.score: float | None = None  # of the weights as they are now
        self.saved_step = -1
        self.has_warned = False  # of a low perplexity, at the last line of the log

    @property
    def model(self) -> CodecModel:
        """The codec in training."""
        return self.step_module.model

    # -- the loop ---------------------------------------------------------------------------------------------------

    def run(self) -> TrainingResult:
        """Train to the end, or until asked to stop."""
        config = self.config
        if self.directory.final.exists():
            self.accelerator.print(f"{config.output} is finished; its result is in {self.directory.final}")
            return TrainingResult(config.total_steps, True, {}, self.directory.final)
        if not self._resume():
            self._calibrate()
        with Progress(
            config.total_steps, unit="steps", label="train-codec", done_before=self.step
        ) as progress:
            while self.step < config.total_steps:
                index, _ = config.stage_of(self.step)
                if index != self.stage_index:
                    self._apply_average(config.stages[index])
                    self._enter_stage(index)
                self._run_stage(config.stages[index], progress)
                if self._should_stop():
                    self._save()
                    self.accelerator.print(
                        f"stopped after {self.step} of {config.total_steps} steps; "
                        "the same command goes on from there"
                    )
                    return TrainingResult(self.step, False, self.metrics, None)
        self._finish()
        return TrainingResult(self.step, True, self.metrics, self.directory.final)

    def _run_stage(self, stage: Stage, progress: Progress) -> None:
        config, update = self.config, self.update
        assert update is not None
        batches = self._batches(stage)
        watch = Stopwatch()
        # since the last log line: losses summed over the updates that were made, these, and those that were skipped
        sums: dict[str, Tensor] = {}
        made = skipped = 0
        while self.step < config.total_steps and config.stage_of(self.step)[0] == self.stage_index:
            parts = [next(batches) for _ in range(config.accumulation_steps)]
            done = update(self.step, config.stage_of(self.step)[1], parts)
            self.step += 1
            self.score = None
            if done.was_finite:
                made += 1
                for name, value in done.losses.items():
                    sums[name] = sums.get(name, torch.zeros_like(value)) + value
            else:
                skipped += 1
            if self.step % config.log_every == 0:
                heard = (made + skipped) * self._global_batch(stage) * stage.segment_seconds
                values = {name: float(value) / made for name, value in sums.items()} | {
                    **update.learning_rates(config.stage_of(self.step - 1)[1]),
                    "audio_seconds_per_second": heard / watch.lap(),
                    "stage": self.stage_index,
                    "seconds": self._seconds(),
                    **self._codebook_use(update),
                }
                if skipped:
                    values["skipped_updates"] = skipped
                self.directory.log(self.step, values)
                sums, made, skipped = {}, 0, 0
            with watch.paused():
                last = self.step == config.total_steps
                if self.data.validation and (self.step % config.evaluate_every == 0 or last):
                    self._validate(stage)
                if self.step % config.checkpoint_every == 0 or last:
                    self._save()
            progress.update(1)
            if self._should_stop():
                return

    def _codebook_use(self, update: StageUpdate) -> dict[str, float]:
        """Perplexity of the first quantizer's codes since the last line of the log; a warning where it is low."""
        if not isinstance(update.usage, Tensor):
            return {}
        counts = sum_over_processes(update.usage.double().cpu(), self.accelerator)
        update.usage = 0.0
        found = perplexity(counts)
        bound = self.config.least_perplexity * len(counts)
        if found < bound and not self.has_warned:
            self.accelerator.print(
                f"step {self.step}: perplexity {found:.1f} of {len(counts):,} codes, below {bound:.1f}: if it stays "
                "there, start again with a lower learning rate, a longer schedule.warmup_steps, or another losses.vq"
            )
        self.has_warned = found < bound
        return {"perplexity": found}

    def _global_batch(self, stage: Stage) -> int:
        return stage.batch_size * self.config.accumulation_steps * self.accelerator.num_processes

    def _batches(self, stage: Stage) -> Iterator[dict[str, Tensor]]:
        """This process's batches of the stage from the present step on."""
        numbers = SegmentNumbers(
            stage=self.stage_index,
            batches=self.config.batches_of(*self.config.stage_of(self.step)),
            batch_size=stage.batch_size,
            process=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
        )
        return open_batches(self.data.segments(stage.segment_seconds), numbers, self.config.workers)

    def _should_stop(self) -> bool:
        limit = self.config.max_seconds
        if limit is not None and time.monotonic() - self.started > limit:
            self.stop.requested = True
        return self.step < self.config.total_steps and self.stop.agreed(self.accelerator)

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    # -- stages, validation, checkpoints ----------------------------------------------------------------------------

    def _enter_stage(self, index: int) -> None:
        """Freeze the parts that this stage does not train, and start its optimizers."""
        stage = self.config.stages[index]
        self.stage_index = index
        self._set_modes(stage)
        for name in ("distillation", "ctc"):
            if (head := getattr(self.step_module, name)) is not None:
                head.requires_grad_(getattr(stage.losses, name) > 0)
        if self.adversary is not None:
            for name, discriminator in self.adversary.discriminators.items():
                discriminator.requires_grad_(name in stage.losses.discriminators)
        # the DDP of the stage before removes its hooks before this stage's adds its own
        self.update = None
        self.update = StageUpdate(
            self.accelerator,
            self.config,
            stage,
            self.step_module,
            self.adversary,
            self.average,
        )

    def _apply_average(self, stage: Stage) -> None:
        """Parts that stop training take their averages as weights, for these will be exported."""
        if self.average is not None:
            for part in set(self.model.PARTS) - set(stage.train):
                self.average.copy_to_weights(f"model.{part}.")

    def _new_average(self) -> WeightAverage | None:
        decay = self.config.ema_decay
        return WeightAverage(self.step_module.named_parameters(), decay) if decay else None

    def _set_modes(self, stage: Stage) -> None:
        self.step_module.train()
        self.model.freeze(set(self.model.PARTS) - set(stage.train))

    def _calibrate(self) -> None:
        """Measure the teacher's features. Scale encoder output and codebook, unless another run gave them."""
        if isinstance(self.step_module.distillation, FeatureRegression):
            segments = self.data.segments(_CALIBRATION_SECONDS)
            batches = (
                collate([segments[first + index] for index in range(_CALIBRATION_SEGMENTS)])
                for first in range(0, _MEASURED_SEGMENTS, _CALIBRATION_SEGMENTS)
            )
            self.step_module.measure_teacher(batches)
        given = set(self.config.initialize)
        fresh = set() if self.model.config.exported else {"encoder", "quantizer"} - given
        if "decoder" not in given and any("decoder" in stage.train for stage in self.config.stages):
            fresh.add("decoder")
        if fresh and "all" not in given:
            segments = self.data.segments(_CALIBRATION_SECONDS)
            batch = collate([segments[index] for index in range(_CALIBRATION_SEGMENTS)])
            waveform = batch["waveform"].to(self.accelerator.device)
            waveform = nn.functional.pad(waveform, (0, -waveform.shape[1] % self.model.config.hop_length))
            padding_mask = mask_from_lengths(batch["length"], waveform.shape[1]).to(waveform.device)
            target = self.model.normalized(waveform)
            mel = self.step_module.mel_of(target) if self.step_module.decodes_mel else None
            self.model.eval()
            with uncompiled(self.config.compile):
                self.model.calibrate(waveform[:, None], padding_mask, fresh, mel)
            self.average = self._new_average()

    def _validate(self, stage: Stage) -> None:
        with self._averaged(), uncompiled(self.config.compile):
            result = validate(self.step_module, self.data.validation, stage, self.accelerator)
        self._set_modes(stage)
        self.metrics, self.score = result.metrics | {"score": result.score}, result.score
        self.directory.log(self.step, {f"validation/{key}": value for key, value in self.metrics.items()})
        if (board := self.directory.tensorboard) is not None:
            log_samples(board, self.step, result.samples, self.model.config.sampling_rate)

    def _averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self.average is None else self.average.swapped()

    def _save(self) -> None:
        if self.saved_step == self.step:
            return
        counters = {
            "step": self.step,
            "stage": self.stage_index,
            "data": self.data.digest,
            "seconds": self._seconds(),
        }
        score = self.score
        if self.config.stages[self.stage_index].losses.discriminators:
            # every checkpoint has other discriminators, and distances alone favour blurred ones: the newest is best
            score = -float(self.step)
        # scores of other stages measure something else
        last_stage = self.stage_index == len(self.config.stages) - 1
        self.directory.save(
            self.step,
            lambda directory: save_checkpoint(directory, self._state(), counters),
            score=score if last_stage else None,
        )
        self.saved_step = self.step
        self.accelerator.wait_for_everyone()

    def _state(self) -> TrainedState:
        update = self.update
        assert update is not None
        return TrainedState(
            self.step_module,
            update.generator.optimizer,
            self.average,
            self.adversary,
            None if update.discriminators is None else update.discriminators.optimizer,
        )

    def _resume(self) -> bool:
        """Restore the checkpoint to go on from; False without one."""
        if (checkpoint := self.checkpoint) is None:
            return False
        self.checkpoint = None  # it is large
        self._enter_stage(checkpoint.counters["stage"])
        checkpoint.restore(self._state())
        self.step = self.saved_step = checkpoint.counters["step"]
        self.seconds_before = checkpoint.counters["seconds"]
        self.accelerator.print(f"going on from step {self.step}")
        return True

    def _finish(self) -> None:
        if self.accelerator.is_main_process:
            final = self.directory.final
            with self._averaged(), whole_directory(final) as directory, quiet_transformers():
                self.model.save_pretrained(directory)
        self.accelerator.wait_for_everyone()

    def _open_directory(self) -> None:
        """Claim the run directory: a new one, or the one of this run, whose last stage may have another length."""
        config, directory = self.config, self.directory
        may_change = (*_MAY_CHANGE, f"stages.{len(config.stages) - 1}.steps")
        begun, changed = directory.reopen(config, may_change)
        done = 0 if begun is None else checkpoint_step(begun)
        if done > config.total_steps:
            raise UserError(
                f"{config.output} has gone {done} steps already, the stages ask for {config.total_steps}: "
                "give them more steps, or the run another output directory"
            )
        if begun is not None and not (directory.final.exists() and done == config.total_steps):
            self.checkpoint = Checkpoint(begun)
            if self.checkpoint.counters["data"] not in (self.data.digest, self.data.older_digest):
                raise UserError(f"{begun} was trained on other data: give this run another output directory")
        directory.lock()
        self.accelerator.wait_for_everyone()
        directory.go_on("train-codec", done, config, may_change, changed)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process and directory.final.exists() and 0 < done < config.total_steps:
            remove_directory(directory.final)  # the result of the shorter run
        self.accelerator.wait_for_everyone()
