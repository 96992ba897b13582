"""The training loop of codecs: stages, accumulation, average of weights, validation, checkpoints, resume."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader

from codec.distillation import SSLTeacher
from codec.modeling import HHCodecModel
from codec.precision import cpu_has_bfloat16
from codec.runs import (
    Progress,
    RunDirectory,
    StopSignal,
    UserError,
    load_training_state,
    optimizer_tensors,
    restore_optimizer,
    save_training_state,
    seed_globals,
    whole_directory,
)
from codec.training.config import CodecTrainingConfig, Stage
from codec.training.ema import WeightAverage
from codec.training.pictures import log_samples
from codec.training.start import build_model
from codec.training.step import CodecTrainingStep
from codec.training.validation import ValidationSet, validate

STAGE_STRIDE = 10**9  # segments of different stages never share an index
# fields that a resumed run may change: they do not touch the weights
FREE_FIELDS = ("output", "max_seconds", "log_every", "checkpoint_every", "keep_last", "workers")


class Segments(Protocol):
    """Training examples by number: {"waveform": (samples,), "length": int}, a pure function of the index."""

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


@dataclass
class TrainingData:
    """What a codec learns from, given from outside: the codec package knows no corpora."""

    segments: Callable[[float], Segments]  # segment length in seconds -> examples
    validation: Sequence[ValidationSet] = field(default_factory=list)
    digest: str = ""  # names the data: a run resumes on the same data only


@dataclass
class TrainingResult:
    """Where a run stands when `train_codec` returns."""

    step: int
    finished: bool
    metrics: dict[str, float]
    final: Path | None


def train_codec(config: CodecTrainingConfig, data: TrainingData) -> TrainingResult:
    """Train a codec as the config says; the same call goes on where a killed or stopped run left off.

    Raises UserError when the output directory holds a run of another config or other data.
    """
    return CodecTrainer(config, data).run()


class CodecTrainer:
    """One training run in progress."""

    def __init__(self, config: CodecTrainingConfig, data: TrainingData):
        self.config, self.data = config, data
        self.directory = RunDirectory(config.output, keep_last=config.keep_last)
        self.directory.write_config(config, may_change=FREE_FIELDS)
        bf16 = config.precision == "bf16" or (
            config.precision == "auto"
            and (torch.cuda.is_bf16_supported() if torch.cuda.is_available() else cpu_has_bfloat16())
        )
        self.accelerator = Accelerator(mixed_precision="bf16" if bf16 else "no")
        device = self.accelerator.device
        seed_globals(config.seed, "weights")
        model = build_model(config)
        teacher = None if config.teacher is None else SSLTeacher(config.teacher, config.teacher_layer, device)
        self.step_module = CodecTrainingStep(model, teacher).to(device)
        self.average = WeightAverage(self.step_module, config.ema_decay) if config.ema_decay else None
        self.step = 0
        self.seconds_before = 0.0  # wall clock of earlier starts of this run
        self.started = time.monotonic()
        self.stage_index = -1
        self.optimizer: torch.optim.Optimizer
        self.wrapped: torch.nn.Module = self.step_module
        self.metrics: dict[str, float] = {}

    @property
    def model(self) -> HHCodecModel:
        return self.step_module.model

    # -- the loop ---------------------------------------------------------------------------------------------------

    def run(self) -> TrainingResult:
        """Train to the end, or until asked to stop."""
        config = self.config
        if self.directory.final.exists():
            self.accelerator.print(f"{config.output} is finished; its result is in {self.directory.final}")
            return TrainingResult(config.total_steps, True, {}, self.directory.final)
        resumed = self._resume()
        if not resumed:
            self._calibrate()
        with (
            StopSignal() as stop,
            Progress(config.total_steps, unit="steps", label="train-codec") as progress,
        ):
            progress.update(self.step)
            while self.step < config.total_steps:
                index, _ = config.stage_of(self.step)
                if index != self.stage_index:
                    self._enter_stage(index)
                self._run_stage(config.stages[index], stop, progress)
                if self._should_stop(stop):
                    self._save()
                    self.directory.close()
                    self.accelerator.print(
                        f"stopped after {self.step} of {config.total_steps} steps; the same command goes on from there"
                    )
                    return TrainingResult(self.step, False, self.metrics, None)
        self._finish()
        return TrainingResult(self.step, True, self.metrics, self.directory.final)

    def _run_stage(self, stage: Stage, stop: StopSignal, progress: Progress) -> None:
        config = self.config
        batches = self._batches(stage)
        sums: dict[str, Tensor] = {}
        logged_at, since = time.monotonic(), 0
        while self.step < config.total_steps and config.stage_of(self.step)[0] == self.stage_index:
            losses = self._update(stage, [next(batches) for _ in range(config.accumulation_steps)])
            self.step += 1
            since += 1
            for name, value in losses.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value
            if self.step % config.log_every == 0:
                values = {name: float(value) / since for name, value in sums.items()}
                elapsed = time.monotonic() - logged_at
                heard = since * self._global_batch(stage) * stage.segment_seconds
                values |= {
                    "learning_rate": self._learning_rate(),
                    "audio_seconds_per_second": heard / elapsed,
                    "stage": self.stage_index,
                    "seconds": self._seconds(),
                }
                self.directory.log(self.step, values)
                sums, since, logged_at = {}, 0, time.monotonic()
            last = self.step == config.total_steps
            if self.data.validation and (self.step % config.evaluate_every == 0 or last):
                self._validate(stage)
                logged_at = time.monotonic()
            if self.step % config.checkpoint_every == 0 and not last:
                self._save()
            progress.update(1)
            if self._should_stop(stop):
                return

    def _update(self, stage: Stage, batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """One optimizer step over all accumulation steps and processes; returns the global losses."""
        accelerator, config = self.accelerator, self.config
        _, done = config.stage_of(self.step)
        factor = stage.schedule.factor(done, stage.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = stage.optimizer.learning_rate * factor
        hop = self.model.config.hop_length
        frames = sum(((batch["length"] + hop - 1) // hop).sum() for batch in batches)
        frames = frames.to(accelerator.device, torch.float64)
        if accelerator.num_processes > 1:
            frames = accelerator.reduce(frames, reduction="sum")
        # DDP averages gradients over processes: with this total, their mean is the gradient of the global mean
        total = float(frames) / accelerator.num_processes
        # dropout is a function of (seed, step, process): a resumed run draws what it would have drawn
        seed_globals(config.seed, "step", self.step, accelerator.process_index)
        summed: dict[str, Tensor] = {}
        for index, batch in enumerate(batches):
            waveform = batch["waveform"].to(accelerator.device)
            lengths = batch["length"].to(accelerator.device)
            if index < len(batches) - 1:
                with accelerator.no_sync(self.wrapped), accelerator.autocast():
                    losses = self.wrapped(waveform, lengths, stage, total)
                    losses["loss"].backward()
            else:
                with accelerator.autocast():
                    losses = self.wrapped(waveform, lengths, stage, total)
                losses["loss"].backward()
            for name, value in losses.items():
                summed[name] = summed.get(name, torch.zeros_like(value.detach())) + value.detach()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        summed["gradient_norm"] = torch.nn.utils.clip_grad_norm_(parameters, stage.optimizer.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.step_module)
        if accelerator.num_processes > 1:
            names = sorted(summed)
            values = accelerator.reduce(
                torch.stack([summed[name].double() for name in names]), reduction="mean"
            )
            summed = dict(zip(names, values.unbind(), strict=True))
        return summed

    # -- data -------------------------------------------------------------------------------------------------------

    def _global_batch(self, stage: Stage) -> int:
        return stage.batch_size * self.config.accumulation_steps * self.accelerator.num_processes

    def _batches(self, stage: Stage) -> Iterator[dict[str, Tensor]]:
        """This process's batches of the stage from the present step on; segment numbers alone say what they are."""
        _, done = self.config.stage_of(self.step)
        loader = DataLoader(
            self.data.segments(stage.segment_seconds),  # type: ignore[arg-type]
            batch_sampler=_Numbers(
                start=self.stage_index * STAGE_STRIDE + done * self._global_batch(stage),
                end=self.stage_index * STAGE_STRIDE + stage.steps * self._global_batch(stage),
                batch_size=stage.batch_size,
                process=self.accelerator.process_index,
                processes=self.accelerator.num_processes,
            ),
            num_workers=self.config.workers,
            collate_fn=_collate,
            persistent_workers=False,
        )
        return iter(loader)

    # -- stages, validation, checkpoints ----------------------------------------------------------------------------

    def _enter_stage(self, index: int) -> None:
        """Freeze what this stage does not train and start its optimizer."""
        stage = self.config.stages[index]
        self.stage_index = index
        model = self.model
        self.step_module.train()
        model.freeze(set(model.PARTS) - set(stage.train))
        for part in set(model.PARTS) - set(stage.train):
            model.get_submodule(part).eval()
        if self.step_module.distillation is not None:
            self.step_module.distillation.requires_grad_(stage.losses.distillation > 0)
        parameters = [p for p in self.step_module.parameters() if p.requires_grad]
        if not parameters:
            raise UserError(
                f"stage {index} trains nothing: name parts of {', '.join(model.PARTS)} in its `train`"
            )
        self.optimizer = torch.optim.AdamW(
            parameters,
            lr=stage.optimizer.learning_rate,
            betas=stage.optimizer.betas,
            weight_decay=stage.optimizer.weight_decay,
            fused=True,
        )
        self.wrapped = self.step_module
        if self.accelerator.num_processes > 1:
            self.wrapped = torch.nn.parallel.DistributedDataParallel(
                self.step_module,
                device_ids=[self.accelerator.local_process_index]
                if self.accelerator.device.type == "cuda"
                else None,
                broadcast_buffers=False,
            )

    def _calibrate(self) -> None:
        """Scale encoder output and codebook from data before the first step, unless they come from elsewhere."""
        if not self.model.config.exported and not {"encoder", "quantizer", "all"} & set(
            self.config.initialize
        ):
            segments = self.data.segments(2.0)
            batch = _collate([segments[index] for index in range(16)])
            self.model.calibrate(batch["waveform"][:, None].to(self.accelerator.device))
            if self.average is not None:
                self.average = WeightAverage(self.step_module, self.config.ema_decay)

    def _validate(self, stage: Stage) -> None:
        if self.accelerator.is_main_process:
            with self._averaged():
                result = validate(self.step_module, self.data.validation, stage)
            self.metrics = result.metrics | {"score": result.score}
            self.directory.log(self.step, {f"validation/{key}": value for key, value in self.metrics.items()})
            if self.directory.tensorboard is not None:
                log_samples(
                    self.directory.tensorboard, self.step, result.samples, self.model.config.sampling_rate
                )
            self.step_module.train()
            for part in set(self.model.PARTS) - set(stage.train):
                self.model.get_submodule(part).eval()
        self.accelerator.wait_for_everyone()

    def _averaged(self) -> Any:
        from contextlib import nullcontext

        return nullcontext() if self.average is None else self.average.applied(self.step_module)

    def _save(self) -> None:
        tensors = {f"model/{name}": value for name, value in self.step_module.state_dict().items()}
        tensors |= {f"optimizer/{name}": value for name, value in optimizer_tensors(self.optimizer).items()}
        if self.average is not None:
            tensors |= {f"average/{name}": value for name, value in self.average.tensors().items()}
        counters = {
            "step": self.step,
            "stage": self.stage_index,
            "average_updates": self.average.updates if self.average else 0,
            "data": self.data.digest,
            "seconds": self._seconds(),
        }
        self.directory.save(
            self.step,
            lambda directory: save_training_state(directory, tensors, counters),
            score=self.metrics.get("score"),
        )
        self.accelerator.wait_for_everyone()

    def _resume(self) -> bool:
        latest = self.directory.latest()
        self.directory.resume(0 if latest is None else int(latest.name.split("-")[-1]))
        if latest is None:
            return False
        state = load_training_state(latest)
        if state.counters["data"] != self.data.digest:
            raise UserError(f"{latest} was trained on other data: give this run another output directory")
        self._enter_stage(state.counters["stage"])

        def under(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix): value
                for name, value in state.tensors.items()
                if name.startswith(prefix)
            }

        self.step_module.load_state_dict(under("model/"))
        restore_optimizer(self.optimizer, under("optimizer/"))
        if self.average is not None:
            self.average.restore(under("average/"), state.counters["average_updates"])
        self.step = state.counters["step"]
        self.seconds_before = state.counters["seconds"]
        self.accelerator.print(f"going on from {latest}")
        return True

    def _finish(self) -> None:
        if self.accelerator.is_main_process:
            with self._averaged(), whole_directory(self.directory.final) as directory:
                self.model.save_pretrained(directory)
        self.directory.close()
        self.accelerator.wait_for_everyone()

    def _should_stop(self, stop: StopSignal) -> bool:
        limit = self.config.max_seconds
        if limit is not None and time.monotonic() - self.started > limit:
            stop.requested = True
        return self.step < self.config.total_steps and stop.agreed(self.accelerator)

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def _learning_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])


class _Numbers:
    """Batch sampler: the numbers of each of this process's batches, in order."""

    def __init__(self, start: int, end: int, batch_size: int, process: int, processes: int):
        self.start, self.end, self.batch_size = start, end, batch_size
        self.process, self.processes = process, processes

    def __iter__(self) -> Iterator[list[int]]:
        for first in range(self.start, self.end, self.batch_size * self.processes):
            own = first + self.process * self.batch_size
            yield list(range(own, own + self.batch_size))

    def __len__(self) -> int:
        return math.ceil((self.end - self.start) / (self.batch_size * self.processes))


def _collate(examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    return {
        "waveform": torch.stack([example["waveform"] for example in examples]),
        "length": torch.tensor([example["length"] for example in examples]),
    }
