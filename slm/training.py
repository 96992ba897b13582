"""Training a language model on token datasets, on one process or many."""

import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from codec.runs import (
    Progress,
    RunDirectory,
    StopSignal,
    UserError,
    load_training_state,
    optimizer_tensors,
    rank,
    remove_directory,
    restore_optimizer,
    save_training_state,
    seed_globals,
    whole_directory,
    world_size,
)
from slm.attention import PER_DOCUMENT
from slm.block_stream import BlockStream, StreamPosition, stack
from slm.blocks import Block
from slm.checkpoint import MODEL_FILE, save_checkpoint
from slm.loss import LossSums, PackedLanguageModel
from slm.model import build_model
from slm.optimizer import WeightAverage, build_optimizer
from slm.training_config import SLMTrainingConfig
from slm.training_data import TrainingData, dataset_name, open_training_data, speaking_habits
from slm.validation import sum_over_processes, validate

if TYPE_CHECKING:
    from accelerate import Accelerator

# What may differ when a run goes on: nothing of it changes what is learnt, or, with the length of the run, only
# from here on.
_MAY_CHANGE = (
    "output", "max_steps", "max_seconds", "batch.blocks_per_forward", "workers", "log_every", "validate_every",
    "validation_blocks", "checkpoint_every", "keep_last",
)  # fmt: skip
_MOST_SKIPPED_UPDATES = 20


@dataclass(frozen=True)
class TrainingResult:
    """How a call of `train_slm` ended."""

    steps: int  # updates made over the whole run
    finished: bool  # False: stopped by a signal; the same call goes on
    final: Path | None  # the SLM checkpoint, once finished
    validation_loss: float | None  # the last one, nats per unit of loss weight


@dataclass
class _Counters:
    """Where a run stands: with the weights and the optimizer, all that a checkpoint has to know."""

    step: int = 0
    phase: int = 0  # 1: in the decay, if it has a mixture of its own
    epoch: int = 0
    block: int = 0
    seconds: float = 0.0  # of training, validation and saving
    tokens: int = 0
    skipped: int = 0  # updates in a row whose gradient was not finite


def train_slm(config: SLMTrainingConfig, data: TrainingData | None = None) -> TrainingResult:
    """Train a speech language model; run under `accelerate launch` or torchrun for many processes.

    Writes the run directory `config.output`; a run that is there already goes on from its last checkpoint. The
    result is `final/`, a plain transformers checkpoint with its tokenizer and `speech.json`. `data` is what
    `open_training_data(config)` gives, unless it comes from elsewhere.

    Raises UserError for bad configs and data, and when the directory holds another run.
    """
    accelerator = _accelerator(config)
    run = RunDirectory(config.output, keep_last=config.keep_last)
    run.write_config(config, may_change=_MAY_CHANGE)
    data = data or open_training_data(config)
    with StopSignal() as stop:
        try:
            return _Trainer(config, accelerator, run, data, stop).train()
        finally:
            run.close()


class _Trainer:
    def __init__(
        self,
        config: SLMTrainingConfig,
        accelerator: "Accelerator",
        run: RunDirectory,
        data: TrainingData,
        stop: StopSignal,
    ) -> None:
        self.config, self.accelerator, self.run, self.data, self.stop = config, accelerator, run, data, stop
        model = build_model(
            config.model,
            data.vocabulary,
            config.seed,
            data.codebooks,
            _attention(config, accelerator.device),
            torch.float64 if config.precision == "float64" else torch.float32,
        ).to(accelerator.device)
        self.model = PackedLanguageModel(
            model, torch.as_tensor(data.vocabulary.text_bytes.astype("int64"), device=accelerator.device)
        )
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.average = WeightAverage(model, config.ema) if config.ema else None
        self.counters = _Counters()
        self._restore()
        if config.compile:
            self.model.compile_decoder()
        self.wrapped = accelerator.prepare_model(self.model)
        self.habits = speaking_habits(data)
        self.validation_sets = data.validation_blocks()
        self.validation_loss: float | None = None
        self._validated_step = -1
        self._saved_step = self.counters.step

    # ---- the loop

    def train(self) -> TrainingResult:
        config, counters = self.config, self.counters
        self._say_what_trains()
        stream = self._open_stream()
        steps = iter(stream)
        sums = torch.zeros(LossSums.SIZE, dtype=torch.float64)
        logged_tokens, logged_at = counters.tokens, time.monotonic()
        started = time.monotonic() - counters.seconds
        progress = Progress(
            config.max_steps or config.max_seconds,
            unit="steps" if config.max_steps else "s",
            label="train-slm",
            done_before=counters.step if config.max_steps else counters.seconds,
        )
        self.model.train()
        stopped = False
        while not stopped and not self._is_over():
            total = self._total_steps()
            if counters.phase == 0 and self._decay_begins(total):
                counters.phase, counters.epoch, counters.block = 1, 0, 0
                stream = self._open_stream()
                steps = iter(stream)
            blocks = next(steps)
            weight, stopped, seconds = self._agree(blocks, time.monotonic() - started)
            step_sums, gradient_norm, learning_rate = self._update(blocks, weight, total)
            sums += step_sums
            before = counters.seconds
            counters.step += 1
            counters.epoch, counters.block = stream.position.epoch, stream.position.block
            counters.seconds = seconds
            counters.tokens += config.batch.blocks * config.batch.length

            if counters.step % config.log_every == 0:
                losses = LossSums.of(sum_over_processes(sums, self.accelerator))
                elapsed = time.monotonic() - logged_at
                report = {f"train/{name}": value for name, value in self._report(losses).items()}
                report["learning_rate"] = learning_rate
                report["gradient_norm"] = gradient_norm
                report["tokens_per_second"] = (counters.tokens - logged_tokens) / max(elapsed, 1e-9)
                report["tokens"] = counters.tokens
                report["epoch"] = counters.epoch
                report["seconds"] = counters.seconds
                self.run.log(counters.step, report)
                progress.update(0, f"loss {losses.loss:.3f}, {report['tokens_per_second']:,.0f} tokens/s")
                sums.zero_()
                logged_tokens, logged_at = counters.tokens, time.monotonic()
            pause = time.monotonic()
            if counters.step % config.validate_every == 0:
                self._validate()
            if counters.step % config.checkpoint_every == 0 or stopped:
                self._save()
            logged_at += time.monotonic() - pause
            progress.update(1 if config.max_steps else counters.seconds - before)
        progress.close()
        if stopped and not self._is_over():
            if rank() == 0:
                print(
                    f"train-slm: stopped after step {counters.step}; the same command goes on from there",
                    file=sys.stderr,
                )
            return TrainingResult(counters.step, False, None, self.validation_loss)
        return self._finish()

    def _update(self, blocks: list[Block], weight: float, total: int) -> tuple[torch.Tensor, float, float]:
        """One optimizer step on this process's blocks.

        Returns the sums of its losses, the norm of the gradient of all processes, and the learning rate.
        """
        config, counters = self.config, self.counters
        learning_rate = config.optimizer.learning_rate * config.schedule.factor(counters.step, total)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        size = config.batch.blocks_per_forward
        parts = [blocks[start : start + size] for start in range(0, len(blocks), size)]
        sums = torch.zeros(LossSums.SIZE, dtype=torch.float64)
        # DDP averages gradients over processes, and the loss is a mean over the weights of all of them.
        scale = self.accelerator.num_processes / weight if weight else 0.0
        for number, part in enumerate(parts):
            # Dropout is a function of where the run stands, so that a resumed run draws the same.
            seed_globals(config.seed, "dropout", counters.step, number, rank())
            batch = stack(part, self.accelerator.device)
            if number < len(parts) - 1:
                with self.accelerator.no_sync(self.wrapped):
                    output = self.wrapped(**batch)
                    (output["loss"] * scale).backward()
            else:
                output = self.wrapped(**batch)
                (output["loss"] * scale).backward()
            sums += LossSums.vector(output, batch["loss_weights"].sum())
        norm = torch.nn.utils.clip_grad_norm_(
            self.model.parameters(), config.optimizer.clip_norm or math.inf, foreach=True
        ).item()
        if math.isfinite(norm):
            self.optimizer.step()
            if self.average is not None:
                self.average.update(counters.step)
            counters.skipped = 0
        else:
            counters.skipped += 1
            if counters.skipped == _MOST_SKIPPED_UPDATES:
                raise UserError(
                    f"the gradient has not been finite for {_MOST_SKIPPED_UPDATES} steps, the last of them step "
                    f"{counters.step}: lower optimizer.learning_rate and start from an earlier checkpoint"
                )
        self.optimizer.zero_grad(set_to_none=True)
        return sums, norm, learning_rate

    def _agree(self, blocks: list[Block], seconds: float) -> tuple[float, bool, float]:
        """What all processes must know alike: the loss weight of the step, whether to stop, the first one's clock."""
        weight = sum(float(block["loss_weights"].sum(dtype=torch.float64)) for block in blocks)
        own = [weight, float(self.stop.requested), seconds if self.accelerator.is_main_process else 0.0]
        agreed = sum_over_processes(torch.tensor(own, dtype=torch.float64), self.accelerator).tolist()
        return agreed[0], agreed[1] > 0, agreed[2]

    # ---- how long

    def _is_over(self) -> bool:
        config, counters = self.config, self.counters
        return (config.max_steps is not None and counters.step >= config.max_steps) or (
            config.max_seconds is not None and counters.seconds >= config.max_seconds
        )

    def _total_steps(self) -> int:
        """Steps of the whole run; with a time limit, as many as its pace so far lets expect."""
        config, counters = self.config, self.counters
        totals = [] if config.max_steps is None else [config.max_steps]
        if config.max_seconds is not None:
            pace = counters.seconds / counters.step if counters.step else 0.0
            totals.append(math.ceil(config.max_seconds / pace) if pace else sys.maxsize)
        return max(counters.step + 1, min(totals))

    def _decay_begins(self, total: int) -> bool:
        schedule, step = self.config.schedule, self.counters.step
        return (
            self.config.decay_changes_data
            and step >= schedule.warmup_steps
            and schedule.factor(step, total) < 1
        )

    def _open_stream(self) -> BlockStream:
        counters, accelerator = self.counters, self.accelerator
        position = StreamPosition(counters.epoch, counters.block)
        return self.data.stream(
            counters.phase, position, accelerator.process_index, accelerator.num_processes
        )

    # ---- what is reported and saved

    def _report(self, losses: LossSums) -> dict[str, float]:
        vocabulary = self.data.vocabulary
        return losses.report(vocabulary.codec.frame_rate, vocabulary.num_quantizers)

    def _validate(self) -> None:
        if not self.validation_sets:
            return
        if self.average is not None:
            self.average.swap()
        sums = validate(
            self.model,
            self.validation_sets,
            self.accelerator,
            self.config.batch.blocks_per_forward,
            self.config.validation_blocks,
        )
        if self.average is not None:
            self.average.swap()
        together = LossSums.together(sums.values())
        report = {f"validation/{name}": value for name, value in self._report(together).items()}
        if len(sums) > 1:
            for path, part in sums.items():
                report |= {f"validation/{dataset_name(path)}/{k}": v for k, v in self._report(part).items()}
        self.run.log(self.counters.step, report)
        self.validation_loss, self._validated_step = together.loss, self.counters.step

    def _save(self) -> None:
        step = self.counters.step
        score = self.validation_loss if self._validated_step == step else None
        self.run.save(step, self._write_checkpoint, score)
        self._saved_step = step
        self.accelerator.wait_for_everyone()

    def _write_checkpoint(self, directory: Path) -> None:
        """An SLM checkpoint as one would use it, and beside it what training needs to go on."""
        tensors = {f"optimizer/{name}": tensor for name, tensor in optimizer_tensors(self.optimizer).items()}
        if self.average is not None:
            self.average.swap()
            tensors |= {f"weights/{index}": held for index, held in enumerate(self.average.averages)}
        save_checkpoint(directory, self.model.model, self.data.vocabulary, self.habits)
        save_training_state(directory, tensors, asdict(self.counters) | {"datasets": self.data.hashes})
        if self.average is not None:
            self.average.swap()

    def _restore(self) -> None:
        path = self.run.latest()
        if path is not None:
            state = load_training_state(path, self.accelerator.device)
            saved = dict(state.counters)
            _check_datasets(saved.pop("datasets"), self.data, path)
            _load_weights(self.model.model, path / MODEL_FILE)
            restore_optimizer(self.optimizer, _under("optimizer/", state.tensors))
            if self.average is not None:
                self.average.restore(_under("weights/", state.tensors))
            self.counters = _Counters(**saved)
        self.accelerator.wait_for_everyone()
        self.run.resume(self.counters.step)
        if self.accelerator.is_main_process and self.run.final.exists() and not self._is_over():
            remove_directory(self.run.final)  # of a run that is now made longer: it would pass for this one's

    def _finish(self) -> TrainingResult:
        if self._saved_step != self.counters.step:
            if self._validated_step != self.counters.step:
                self._validate()
            self._save()
        if self.accelerator.is_main_process and not self.run.final.exists():
            if self.average is not None:
                self.average.swap()
            with whole_directory(self.run.final) as directory:
                save_checkpoint(directory, self.model.model, self.data.vocabulary, self.habits)
        self.accelerator.wait_for_everyone()
        return TrainingResult(self.counters.step, True, self.run.final, self.validation_loss)

    def _say_what_trains(self) -> None:
        model, config = self.model.model, self.config
        if not self.accelerator.is_main_process:
            return
        parameters = sum(parameter.numel() for parameter in model.parameters())
        print(
            f"train-slm: {model.config.model_type}, {parameters / 1e6:.1f} M parameters, "
            f"{len(self.data.vocabulary)} tokens, {config.batch.blocks} x {config.batch.length} tokens a step, "
            f"{self.accelerator.mixed_precision if config.precision != 'float64' else 'float64'}, "
            f"{model.config._attn_implementation} attention on {self.accelerator.device}"
            + (f", going on from step {self.counters.step}" if self.counters.step else ""),
            file=sys.stderr,
        )
        if not self.validation_sets:
            print("train-slm: no dataset has a validation split, so nothing is validated", file=sys.stderr)


def _accelerator(config: SLMTrainingConfig) -> "Accelerator":
    from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
    from accelerate.state import AcceleratorState

    # Without this, processes that torchrun starts on a machine without accelerators would not find each other.
    cpu = not torch.accelerator.is_available()
    half = config.precision == "bfloat16"
    if config.precision == "auto":
        half = _multiplies_bfloat16(PartialState(cpu=cpu).device)
    AcceleratorState._reset_state()  # of a run before this one in the same process, which may differ in precision
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision="bf16" if half else "no",
        # The model's one buffer is a constant: nothing to send around at every step.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    if accelerator.num_processes != world_size():
        raise UserError(
            f"the launcher started {world_size()} processes, of which accelerate sees {accelerator.num_processes}: "
            "use accelerate launch or torchrun, or start a single process"
        )
    return accelerator


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def _attention(config: SLMTrainingConfig, device: torch.device) -> str:
    if config.attention != "auto":
        return config.attention
    # Documents differ in length from step to step, which a compiled model would be compiled for again and again.
    return PER_DOCUMENT if device.type == "cpu" and not config.compile else "sdpa"


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _load_weights(model: torch.nn.Module, path: Path) -> None:
    from safetensors.torch import load_model

    load_model(model, str(path))  # strict, and knows tied weights


def _check_datasets(hashes: list[str], data: TrainingData, checkpoint: Path) -> None:
    for entry, trained_on, here in zip(data.config.datasets, hashes, data.hashes, strict=True):
        if trained_on != here:
            raise UserError(
                f"{entry.path} has changed since {checkpoint} was trained on it ({trained_on[:16]} then, {here[:16]} "
                "now): bring it back, or start a new run in another output directory"
            )
